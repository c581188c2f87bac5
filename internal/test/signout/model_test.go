package signout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// This file is a model of programs that use MSAL Go 1.10.1 on one store: what
// each API call does to MSAL's memory, which hooks it calls with which hints,
// and which lock it holds meanwhile. It knows when each secret was asked for,
// and checks after each step that sign-outs stick. Package replica has the table
// of the calls.

// The names of one cloud. Clients write the first; other libraries write the
// second.
const (
	online  = "login.microsoftonline.com"
	windows = "login.windows.net"
)

const modelClient = "client"

// A memory is MSAL's: entries by section and key.
type memory struct{ entries []entry }

// An entry is one of a cache. Its key begins with the section.
type entry struct {
	section, key            string
	user, env, client, text string // text is a token, and which
	at                      int64
}

const (
	accessTokens  = "AccessToken"
	refreshTokens = "RefreshToken"
	idTokens      = "IdToken"
	accounts      = "Account"
	appMetadata   = "AppMetadata"
)

func (m *memory) Marshal() ([]byte, error) {
	b := []byte("{")
	for i, section := range []string{accessTokens, refreshTokens, idTokens, accounts, appMetadata} {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, section...)
		b = append(b, `":{`...)
		first := true
		for _, e := range m.entries {
			if e.section != section {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = fmt.Appendf(b, `"%s":{"environment":"%s"`, e.key, e.env)
			for _, f := range [][2]string{{"home_account_id", e.user}, {"client_id", e.client}, {"secret", e.text}} {
				if f[1] != "" {
					b = fmt.Appendf(b, `,"%s":"%s"`, f[0], f[1])
				}
			}
			if e.at != 0 {
				b = fmt.Appendf(b, `,"cached_at":"%d"`, e.at)
			}
			b = append(b, '}')
		}
		b = append(b, '}')
	}
	return append(b, '}'), nil
}

// parsed are caches that were read before: the same come again and again.
var parsed sync.Map // of [][]entry, by their bytes

func (m *memory) Unmarshal(data []byte) error {
	if known, ok := parsed.Load(string(data)); ok {
		m.entries = slices.Clone(known.([]entry))
		return nil
	}
	var sections map[string]map[string]struct {
		HomeAccountID string `json:"home_account_id"`
		Environment   string `json:"environment"`
		ClientID      string `json:"client_id"`
		Secret        string `json:"secret"`
		CachedAt      int64  `json:"cached_at,string"`
	}
	if err := json.Unmarshal(data, &sections); err != nil {
		return err
	}
	m.entries = nil
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		for _, key := range slices.Sorted(maps.Keys(sections[section])) {
			e := sections[section][key]
			m.entries = append(m.entries, entry{section, key, e.HomeAccountID, e.Environment, e.ClientID, e.Secret, e.CachedAt})
		}
	}
	parsed.Store(string(data), slices.Clone(m.entries))
	return nil
}

// refreshToken returns the account's refresh token under any name of its cloud.
func (m *memory) refreshToken(user string) (e entry, ok bool) {
	for _, e := range m.entries {
		if e.section == refreshTokens && e.user == user {
			return e, true
		}
	}
	return entry{}, false
}

// names returns the names of the cloud under which the memory has the account.
func (m *memory) names(user string) (names []string) {
	for _, e := range m.entries {
		if e.section == accounts && e.user == user {
			names = append(names, e.env)
		}
	}
	return names
}

func (m *memory) put(e entry) {
	for i := range m.entries {
		if m.entries[i].section == e.section && m.entries[i].key == e.key {
			m.entries[i] = e
			return
		}
	}
	m.entries = append(m.entries, e)
}

// write does what MSAL does with a token response.
func (m *memory) write(s *secret, env string) {
	n := strconv.Itoa(s.n)
	of := s.user + "-" + env + "-"
	m.put(entry{refreshTokens, of + "refreshtoken-client--", s.user, env, modelClient, "R" + n, 0})
	m.put(entry{accessTokens, of + "accesstoken-client-tenant-scope", s.user, env, modelClient, "A" + n, epoch + int64(s.answered)})
	m.put(entry{idTokens, of + "idtoken-client-tenant-", s.user, env, modelClient, "I" + n, 0})
	m.put(entry{accounts, of + "tenant", s.user, env, "", "", 0})
	m.put(entry{appMetadata, "appmetadata-" + env + "-client", "", env, modelClient, "", 0})
}

// remove does what MSAL does when an account is removed under one name.
func (m *memory) remove(user, env string) {
	m.entries = slices.DeleteFunc(m.entries, func(e entry) bool { return e.user == user && e.env == env })
}

// epoch is before the present of a synctest bubble.
const epoch = 946_000_000

// A disk is a Versioned that fails when it is told to.
type disk struct {
	w    *world
	name string
	data []byte
	rev  int // 0: nothing is stored
	last int

	mu    sync.Mutex // of the lease, which is also given back while time goes by
	owner string
	until time.Time
}

// A connection is a process's to a disk.
type connection struct {
	*disk
	by *process
}

// wait has the disk's next step come when it is told to.
func (d connection) wait(what string) { d.w.park(d.by.name + " " + what + " " + d.name) }

func (d connection) Lease(_ context.Context, owner string, length time.Duration) (bool, error) {
	d.wait("leases")
	if d.w.failLoads {
		return false, errDisk
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != owner && time.Now().Before(d.until) {
		return false, nil
	}
	d.owner, d.until = owner, time.Now().Add(length)
	return true, nil
}

func (d connection) Release(_ context.Context, owner string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner == owner {
		d.until = time.Time{}
	}
	return nil
}

// answer returns the error of a change that was carried out.
func (d connection) answer(what string) error {
	d.w.changes++
	lost := d.w.loseAnswers
	d.wait(what)
	if lost {
		return errDisk
	}
	return nil
}

var errDisk = fmt.Errorf("the disk: %w", persistence.ErrUnavailable)

func (d connection) Load(ctx context.Context) ([]byte, error) {
	data, _, err := d.LoadRevision(ctx)
	return data, err
}

func (d connection) Save(context.Context, []byte) error { return errors.New("saves only if unchanged") }

func (d connection) Revision(context.Context) (string, error) {
	d.wait("reads")
	return d.revision()
}

func (d *disk) revision() (string, error) {
	if d.w.failLoads {
		return "", errDisk
	}
	if d.rev == 0 {
		return "", nil
	}
	return strconv.Itoa(d.rev), nil
}

func (d connection) LoadRevision(context.Context) ([]byte, string, error) {
	d.wait("reads")
	rev, err := d.revision()
	if err != nil {
		return nil, "", err
	}
	if rev == "" {
		return nil, "", persistence.ErrNotFound
	}
	return bytes.Clone(d.data), rev, nil
}

func (d connection) SaveIf(_ context.Context, data []byte, rev string) (string, error) {
	if inside := d.w.inside; inside != nil {
		d.w.inside = nil
		inside()
	}
	d.wait("saves")
	if d.w.failSaves {
		return "", errDisk
	}
	if rev == "" && d.rev != 0 || rev != "" && rev != strconv.Itoa(d.rev) {
		return "", persistence.ErrConflict
	}
	for _, o := range d.w.signOuts {
		of := []byte(`"home_account_id":"` + o.user + `"`)
		if (o.by != nil || !o.p.partitioned) && o.p == d.by && o.ended == 0 && bytes.Contains(d.data, of) && !bytes.Contains(data, of) {
			o.landed = d.w.now
		}
	}
	d.last++
	d.data, d.rev = bytes.Clone(data), d.last
	if d.w.parts != nil && (rev == "" || !d.by.partitioned) {
		d.w.parts.creating[d.by] = true
	}
	saved := strconv.Itoa(d.rev)
	if err := d.answer("has saved"); err != nil {
		return "", err
	}
	return saved, nil
}

func (d connection) Delete(context.Context) error {
	d.wait("deletes")
	return d.remove()
}

func (d connection) DeleteIf(_ context.Context, rev string) error {
	d.wait("deletes")
	if rev != strconv.Itoa(d.rev) {
		return persistence.ErrConflict
	}
	return d.remove()
}

func (d connection) remove() error {
	if d.w.failSaves {
		return errDisk
	}
	d.data, d.rev = nil, 0
	for _, o := range d.w.signOuts {
		if o.everywhere && o.p == d.by && o.ended == 0 && (d.name == "" || o.of(d.name)) {
			o.landed = d.w.now
		}
	}
	return d.answer("has deleted")
}

// A kind says how a program uses MSAL.
type kind struct {
	name        string
	public      bool
	lists       bool // lists the accounts before it does anything else
	partitioned bool
	clients     clients
	oneContext  bool // for all calls; else each request has its own
}

// clients says how many MSAL clients a program makes.
type clients int

const (
	shared clients = iota
	perSignIn
	perRequest
)

var kinds = []kind{
	{name: "public, lists", public: true, lists: true},
	{name: "public, lists, one context", public: true, lists: true, oneContext: true},
	{name: "public", public: true},
	{name: "public, one context", public: true, oneContext: true},
	{name: "confidential"},
	{name: "confidential, one context", oneContext: true},
	{name: "confidential, client per sign-in, one context", clients: perSignIn, oneContext: true},
	{name: "confidential, client per request", clients: perRequest},
	{name: "partitioned, shared client", partitioned: true},
	{name: "partitioned, shared client, one context", partitioned: true, oneContext: true},
	{name: "partitioned, client per request", partitioned: true, clients: perRequest},
}

func kindNamed(name string) kind {
	return kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })]
}

// A process is a program that runs.
type process struct {
	kind
	w        *world
	name     string
	cache    *persistence.Cache
	parts    *persistence.Partitioned
	hooks    cache.ExportReplace
	ctx      context.Context
	contexts map[int]context.Context // of requests
	main     *client
	requests map[int]*client
	calls    map[int]int // how many ops are of a request
}

// A client is an MSAL client.
type client struct {
	p        *process
	memory   *memory
	writer   *call  // who holds the write lock
	signedIn bool   // a user, by itself
	looks    []look // its Replaces that could read
	saved    bool
}

// A look is a Replace that read something, from one tick to another.
type look struct {
	from, to int
	hint     string
	users    []string // of whom it found something stored
}

// saw reports whether the client has looked after one tick and before another,
// where it could see that the user was signed out.
func (c *client) saw(user string, after, before int) bool {
	return slices.ContainsFunc(c.looks, func(l look) bool {
		return after < l.from && l.to < before && (!c.p.partitioned || l.hint == user)
	})
}

// knew returns whether the client's last look before a tick found something stored
// of the user.
func (c *client) knew(user string, before int) bool {
	for _, l := range slices.Backward(c.looks) {
		if l.to < before && (!c.p.partitioned || l.hint == user) {
			return slices.Contains(l.users, user)
		}
	}
	return false
}

// A call is one API call under way.
type call struct {
	c      *client
	ctx    context.Context
	op     op
	began  int
	secret *secret
	out    *signOut
	end    func() // ends its turn; nil: it has none
}

// done ends the call's turn. No step follows.
func (c *call) done() []step {
	if c.end != nil {
		c.end()
	}
	return nil
}

// turn takes the user's turn for a call, until end is called. Where others have it,
// time goes by, and at last the call goes on without it.
func (w *world) turn(c *call, user string) (ctx context.Context, end func()) {
	began, ends, ended := make(chan context.Context), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		err := c.c.p.parts.Exclusive(c.ctx, user, func(ctx context.Context) error {
			began <- ctx
			<-ends
			return nil
		})
		if err != nil {
			panic(err)
		}
	}()
	end = sync.OnceFunc(func() { close(ends); <-ended })
	w.turns = append(w.turns, end)
	w.outside(func() { ctx = <-began })
	return ctx, end
}

// A secret stands for what one token response brought.
type secret struct {
	n        int
	user     string
	c        *client
	refresh  bool
	began    int // of a refresh, tick at which its first Replace had ended
	asked    int // tick; of a sign-in, when it began
	answered int
	done     int     // tick at which MSAL's caller was told that it succeeded; 0: not yet
	known    bool    // as it was answered, the client was known to be a public one
	unread   bool    // as unseen, until the client has looked once more
	parent   *secret // a refresh's, whose refresh token it was asked for with
	revived  bool    // stored although the user was signed out, as it may be
	mixed    bool    // its context is also another call's
	session  *secret // the sign-in that it descends from
	unsaved  bool    // of a sign-in: could not be stored at once
	unseen   bool    // could not be stored, and nothing that is stored tells of it
	landed   int     // tick at which it was first seen in the store; 0: never
	seen     int     // of a sign-in: the same of anything that descends from it
	untold   bool    // of a sign-in: its own process was not told that it was stored
	withheld bool    // was not stored although the storage worked: an earlier sign-out is in doubt
}

// A signOut is one that began at a tick and has ended at another.
type signOut struct {
	user       string // "" for all users
	by         *client
	p          *process
	begun      int
	landed     int // tick at which the user's entries went from the store; 0: not yet
	ended      int // tick at which it took effect; 0: under way
	failed     bool
	everywhere bool    // by Delete or SignOut
	inside     *client // inside of whose save, while nothing was stored; else nil
}

// An op is what a program does next.
type op struct {
	do      string
	user    string
	marked  bool // a sign-in whose context says so
	inTurn  bool // a refresh inside of Exclusive
	request int  // calls of one request share a context and, where each request has a client, that; 0: its own
}

// An actor does its ops one after the other, in a process.
type actor struct {
	in  int // which process; -1: none
	ops []op
}

// A scenario is what a simulation begins with.
type scenario struct {
	name      string
	processes []kind
	stored    map[string][]string // users who are signed in at first, and the names of the cloud
	by        int                 // the process whose client has signed them in by itself; -1: none
	actors    []actor
	inside    bool // steps also happen inside a save of another one
	unsaved   int  // the most bytes that a Partitioned keeps of what could not be stored; 0: the default
}

// A step is one that no other comes in between, but for one inside a save.
type step struct {
	name   string
	call   *call // nil where no memory is touched
	take   bool  // the client's write lock
	writes bool  // to the store
	saves  bool
	soon   bool          // MSAL waits for nothing before it: no time goes by
	long   bool          // time goes by
	run    func() []step // returns the steps that follow
}

type world struct {
	now       int // tick
	failLoads bool
	failSaves bool
	troubles  int // how often any of these has changed
	// loseAnswers: saves and sign-outs are carried out, and their caller is
	// told that they failed.
	loseAnswers bool
	inside      func()
	saving      *client // inside of whose save this step is; else nil
	later       int     // tick at which the time last went by
	request     int

	disks     map[string]*disk
	processes []*process
	secrets   []*secret
	signOuts  []*signOut
	clients   []*client
	queues    [][]step
	before    []entry // what was stored when it was looked at last
	beforeAt  int     // tick of that
	checked   int     // how many saves and sign-outs had been, then
	changes   int
	trace     []string
	bad       string
	parts     *parts   // nil: a step is one with all that the store does in it
	turns     []func() // end the turns of Exclusive that calls may still have
}

// wait is longer than a memory is in doubt of a sign-in. It costs no real time.
const wait = 5*time.Minute + time.Second

func newWorld(s *scenario) *world {
	w := &world{disks: map[string]*disk{}, checked: -1, request: 1 << 20}
	for i, k := range s.processes {
		p := &process{kind: k, w: w, name: string(rune('P' + i)), ctx: context.Background(), contexts: map[int]context.Context{}, requests: map[int]*client{}, calls: map[int]int{}}
		var err error
		if k.partitioned {
			opts := []persistence.Option{persistence.WithLogger(slog.New(slog.DiscardHandler))}
			if s.unsaved != 0 {
				opts = append(opts, persistence.WithMaxUnsaved(s.unsaved))
			}
			p.parts, err = persistence.NewPartitioned(func(_ context.Context, partition string) (persistence.Persistence, error) {
				return connection{w.disk(partition), p}, nil
			}, opts...)
			p.hooks = p.parts
		} else {
			p.cache, err = persistence.New(connection{w.disk(""), p}, persistence.WithLogger(slog.New(slog.DiscardHandler)))
			p.hooks = p.cache
		}
		if err != nil {
			panic(err)
		}
		p.main = w.newClient(p)
		w.processes = append(w.processes, p)
	}
	for _, user := range []string{alice, bob, "zoe"} {
		w.disk(w.partition(user)) // so that a step finds it, and makes none
	}
	for _, user := range slices.Sorted(maps.Keys(s.stored)) {
		w.now++
		for _, env := range s.stored[user] {
			w.signedIn(s, user, env)
		}
	}
	for _, a := range s.actors {
		var p *process
		if a.in >= 0 {
			p = w.processes[a.in]
		}
		var first []step
		for _, o := range a.ops {
			if p != nil && o.request != 0 {
				p.calls[o.request]++
			}
			first = append(first, w.first(p, o))
		}
		w.queues = append(w.queues, first)
	}
	for _, p := range w.processes {
		if p.lists {
			w.replace(&call{c: p.main, ctx: p.contextOf(0)}, "")
			w.replace(&call{c: p.main, ctx: p.contextOf(0)}, "")
		}
	}
	w.check()
	return w
}

// signedIn has a user signed in before the simulation begins.
func (w *world) signedIn(s *scenario, user, env string) {
	n := w.mint(nil, user, false)
	n.session, n.answered, n.done = n, w.now, w.now
	if s.by >= 0 && env == online {
		c := &call{c: w.processes[s.by].clientOf(op{do: "sign in"}), ctx: w.processes[s.by].contextOf(0)}
		n.c = c.c
		w.replace(c, c.c.p.signInHint(user))
		c.c.memory.write(n, env)
		if err := w.export(c, c.c.p.signInHint(user)); err != nil {
			panic(err)
		}
		c.c.signedIn = true
		return
	}
	d := w.disk(w.partition(user))
	m := &memory{}
	if d.rev != 0 {
		if err := m.Unmarshal(d.data); err != nil {
			panic(err)
		}
	}
	m.write(n, env)
	d.data, _ = m.Marshal()
	d.last++
	d.rev = d.last
}

func (w *world) partition(user string) string {
	if w.processes[0].partitioned {
		return user
	}
	return ""
}

func (w *world) disk(name string) *disk {
	d := w.disks[name]
	if d == nil {
		d = &disk{w: w, name: name}
		w.disks[name] = d
	}
	return d
}

func (w *world) newClient(p *process) *client {
	c := &client{p: p, memory: &memory{}}
	w.clients = append(w.clients, c)
	return c
}

type requestKey struct{}

func (p *process) contextOf(request int) context.Context {
	if p.oneContext {
		return p.ctx
	}
	if request == 0 {
		p.w.request++
		request = p.w.request
	}
	if p.contexts[request] == nil {
		p.contexts[request] = context.WithValue(p.ctx, requestKey{}, request)
	}
	return p.contexts[request]
}

func (p *process) clientOf(o op) *client {
	switch {
	case p.clients == perRequest && o.request == 0, p.clients == perSignIn && o.do == "sign in":
		return p.w.newClient(p)
	case p.clients == perRequest:
		if p.requests[o.request] == nil {
			p.requests[o.request] = p.w.newClient(p)
		}
		return p.requests[o.request]
	}
	return p.main
}

// mixed says whether the context of an op is also that of others.
func (p *process) mixed(o op) bool { return p.oneContext || p.calls[o.request] > 1 }

// signInHint is the hint of a sign-in's hooks.
func (p *process) signInHint(user string) string {
	if p.public {
		return ""
	}
	return user
}

func (w *world) works() bool { return !w.failSaves && !w.failLoads && !w.loseAnswers }

func (w *world) mint(c *client, user string, refresh bool) *secret {
	s := &secret{n: len(w.secrets), user: user, c: c, refresh: refresh, asked: w.now}
	w.secrets = append(w.secrets, s)
	return s
}

func (w *world) replace(c *call, hint string) (err error) {
	l := look{from: w.now, hint: hint}
	worked, there := w.readable(), w.usersStored()
	w.outside(func() { err = c.c.p.hooks.Replace(c.ctx, c.c.memory, cache.ReplaceHints{PartitionKey: hint}) })
	if err == nil && worked == w.readable() && worked >= 0 {
		l.to = w.now
		for _, user := range w.usersStored() {
			if slices.Contains(there, user) {
				l.users = append(l.users, user)
			}
		}
		c.c.looks = append(c.c.looks, l)
	}
	return err
}

// readable returns how often trouble has begun or ended, or -1 while nothing can be
// read.
func (w *world) readable() int {
	if w.failLoads {
		return -1
	}
	return w.troubles
}

func (w *world) usersStored() (users []string) {
	for _, e := range w.stored("") {
		if !slices.Contains(users, e.user) {
			users = append(users, e.user)
		}
	}
	return users
}

func (w *world) export(c *call, hint string) (err error) {
	c.c.saved = true
	w.outside(func() { err = c.c.p.hooks.Export(c.ctx, c.c.memory, cache.ExportHints{PartitionKey: hint}) })
	return err
}

// first returns the first step of an op.
func (w *world) first(p *process, o op) step {
	switch o.do {
	case "saves fail":
		return step{name: o.do, writes: true, run: func() []step { w.failSaves = true; w.troubles++; return nil }}
	case "reads fail":
		return step{name: o.do, writes: true, run: func() []step { w.failLoads = true; w.troubles++; return nil }}
	case "all fails":
		return step{name: o.do, writes: true, run: func() []step { w.failLoads, w.failSaves = true, true; w.troubles++; return nil }}
	case "all works":
		return step{name: o.do, writes: true, run: func() []step {
			w.failLoads, w.failSaves, w.loseAnswers = false, false, false
			w.troubles++
			return nil
		}}
	case "answers are lost":
		return step{name: o.do, writes: true, run: func() []step { w.loseAnswers = true; w.troubles++; return nil }}
	case "time goes by":
		return step{name: o.do, writes: true, long: true, run: func() []step {
			<-time.After(wait)
			w.later = w.now
			return nil
		}}
	case "flush":
		return step{name: p.name + " flush", writes: true, saves: true, run: func() []step {
			w.outside(func() { p.parts.Flush(p.ctx) }) //nolint:errcheck // the next one tries again
			return nil
		}}
	case "delete", "sign out here":
		return step{name: p.name + " " + o.do + " " + o.user, writes: true, run: func() []step {
			out := w.signingOut(&signOut{p: p, user: o.user, everywhere: true})
			var err error
			switch {
			case p.partitioned:
				w.outside(func() { err = p.parts.SignOut(p.ctx, o.user) })
			case o.do == "delete":
				out.user = ""
				w.outside(func() { err = p.cache.Delete(p.ctx) })
			default:
				w.outside(func() {
					err = p.cache.SignOut(p.ctx, persistence.Account{HomeAccountID: o.user, Environment: online})
				})
			}
			w.ended(out, err)
			return nil
		}}
	}
	c := &call{c: p.clientOf(o), ctx: p.contextOf(o.request), op: o}
	name := fmt.Sprintf("%s%d %s %s", p.name, slices.Index(w.clients, c.c), o.do, o.user)
	if o.request != 0 {
		name += fmt.Sprintf(" (request %d)", o.request)
	}
	s := step{name: name + ": ", call: c}
	retries := p.partitioned // a Replace may store what could not be stored before
	next := func(what string, run func() []step) step {
		return step{name: name + ": " + what, call: c, run: run, writes: retries && what[0] == 'R'}
	}
	switch o.do {
	case "hit":
		return next("R(user)", func() []step { w.replace(c, o.user); return nil })
	case "list":
		return next("R", func() []step { w.replace(c, p.signInHint("account")); return nil })
	case "refresh":
		return next("R(user)", func() []step {
			if o.inTurn {
				c.ctx, c.end = w.turn(c, o.user)
			}
			if w.replace(c, o.user) != nil {
				return c.done()
			}
			c.began = w.now
			s := next("ask", func() []step { return w.ask(c, next) })
			s.soon = true // between the two, MSAL only lets its lock go
			return []step{s}
		})
	case "sign in":
		return next("begin", func() []step {
			c.secret = w.mint(c.c, o.user, false)
			c.secret.session, c.secret.mixed = c.secret, p.mixed(o)
			if o.marked {
				c.ctx = persistence.SigningIn(c.ctx)
			}
			r := next("R", func() []step { return w.answer(c, p.signInHint(o.user), next) })
			r.take = true
			return []step{r}
		})
	case "sign out":
		if p.partitioned {
			panic("a Partitioned has no RemoveAccount")
		}
		s = next("R", func() []step { return w.removal(c, online, next) })
		s.take = true
		return s
	}
	panic(o.do)
}

type nextStep func(what string, run func() []step) step

// ask is a silent call that finds no access token: it asks for one with what
// refresh token there is.
func (w *world) ask(c *call, next nextStep) []step {
	rt, ok := c.c.memory.refreshToken(c.op.user)
	if !ok {
		return c.done() // "no token found"
	}
	n, _ := strconv.Atoi(rt.text[1:])
	c.secret = w.mint(c.c, c.op.user, true)
	c.secret.began, c.secret.parent = c.began, w.secrets[n]
	c.secret.session, c.secret.mixed = w.secrets[n].session, c.c.p.mixed(c.op)
	s := next("R(user)", func() []step { return w.answer(c, c.op.user, next) })
	s.take = true
	return []step{s}
}

// answer is what MSAL does with an answer, under the write lock.
func (w *world) answer(c *call, hint string, next nextStep) []step {
	troubles := w.troubles
	if w.replace(c, hint) != nil {
		c.c.writer = nil
		return c.done()
	}
	unread := w.failLoads || w.troubles != troubles
	s := next("E", func() []step {
		defer func() { c.c.writer = nil; c.done() }()
		s := c.secret
		s.answered, s.known = w.now, c.c.p.public && (c.c.p.lists || c.c.signedIn)
		_, known := c.c.memory.refreshToken(s.user)
		c.c.memory.write(s, online)
		lone := !known || len(w.stored(s.user)) == 0
		working, troubles := w.works(), w.troubles
		err := w.export(c, hint)
		working = working && w.troubles == troubles
		lone = lone || len(w.stored(s.user)) == 0
		s.withheld = working && !slices.ContainsFunc(w.stored(s.user), func(e entry) bool { return e.text == "R"+strconv.Itoa(s.n) })
		s.unsaved = !s.refresh && !working
		s.unseen, s.unread = !s.refresh && !working && lone, !s.refresh && !working && unread
		if err != nil {
			return nil
		}
		s.done = w.now
		if !s.refresh {
			c.c.signedIn = c.c.signedIn || c.c.p.public && !known
			w.checkSignIn(s, working)
		}
		return nil
	})
	s.writes, s.saves = true, true
	return []step{s}
}

// removal removes an account under one name, and then under what names are left
// of it.
func (w *world) removal(c *call, env string, next nextStep) []step {
	if c.out == nil {
		c.out = w.signingOut(&signOut{p: c.c.p, by: c.c, user: c.op.user})
	}
	troubles := w.troubles
	if err := w.replace(c, ""); err != nil {
		c.c.writer = nil
		w.ended(c.out, err)
		return nil
	}
	blind := w.failLoads || w.troubles != troubles
	s := next("E", func() []step {
		c.c.writer = nil
		there := len(c.c.memory.names(c.op.user)) > 0
		c.c.memory.remove(c.op.user, env)
		c.c.writer = c
		err := w.export(c, "")
		c.c.writer = nil
		left := c.c.memory.names(c.op.user)
		switch {
		case err != nil:
			w.ended(c.out, err)
		case len(left) > 0:
			s := next("R", func() []step { return w.removal(c, left[0], next) })
			s.take = true
			return []step{s}
		case !there, blind: // it has signed out only what it knew
			w.ended(c.out, errNobody)
		default:
			w.ended(c.out, nil)
		}
		return nil
	})
	s.writes, s.saves = true, true
	return []step{s}
}

var errNobody = errors.New("there was nobody to sign out")

func (w *world) signingOut(o *signOut) *signOut {
	o.begun = w.now
	if len(w.stored("")) == 0 {
		o.inside = w.saving
	}
	w.signOuts = append(w.signOuts, o)
	return o
}

func (w *world) ended(o *signOut, err error) {
	if o.ended == 0 {
		if o.ended, o.failed = w.now, err != nil; err == nil && o.landed != 0 {
			o.ended = o.landed
		}
		w.changes++
	}
}

// stored returns the entries that are stored and of a user, or of all users for
// "".
func (w *world) stored(user string) (found []entry) {
	for _, d := range w.disks {
		if d.rev == 0 {
			continue
		}
		var m memory
		if err := m.Unmarshal(d.data); err != nil {
			w.fail("what is stored is no cache: %v", err)
			return nil
		}
		for _, e := range m.entries {
			if e.user != "" && (user == "" || e.user == user) {
				found = append(found, e)
			}
		}
	}
	return found
}

func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}

// runnable returns the actors that can do their next step.
func (w *world) runnable(except int) (actors []int) {
	soon := slices.ContainsFunc(w.queues, func(q []step) bool { return len(q) > 0 && q[0].soon })
	for i, q := range w.queues {
		if i == except || len(q) == 0 || soon && q[0].long {
			continue
		}
		if c := q[0].call; c == nil || c.c.writer == nil || c.c.writer == c {
			actors = append(actors, i)
		}
	}
	return actors
}

// do has an actor do its next step, and another one inside its save, or none
// where that is -1.
func (w *world) do(actor, inside int) {
	w.now++
	s := w.queues[actor][0]
	w.queues[actor] = w.queues[actor][1:]
	w.trace = append(w.trace, s.name)
	if s.take {
		s.call.c.writer = s.call
	}
	if inside >= 0 {
		w.inside = func() {
			w.trace = append(w.trace, "-- inside the save:")
			if s.call != nil { // else it is a Flush
				w.saving = s.call.c
			}
			w.do(inside, -1)
			w.saving = nil
			w.trace = append(w.trace, "--")
			w.now++
		}
	}
	more := s.run()
	w.inside = nil
	w.queues[actor] = append(more, w.queues[actor]...)
	w.check()
}
