package merge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// This file simulates processes that share one store, each with a memory as
// MSAL keeps it: they sign in, refresh rotating refresh tokens, add scopes,
// drop expired tokens and sign out, in any interleaving. A model that knows
// nothing of base, ours and theirs, only what each process did and when, says
// after every write what must be stored.

// A grant is what one process can know of one account: entry name to the time
// at which the entry was written, which is also its secret. The names are
// "account", "refresh APP", "id APP" and "access APP SCOPE".
type grant map[string]int64

// A memory is a cache: accounts to grants.
type memory map[string]grant

// refreshTokens returns the names of the client's refresh token, if it has one:
// the clients of a family share theirs, whoever got it.
func (g grant) refreshTokens(client string) (names []string) {
	clients := []string{client}
	if strings.HasPrefix(client, "family") {
		clients = []string{"family1", "family2"}
	}
	for _, c := range clients {
		if _, ok := g["refresh "+c]; ok {
			names = append(names, "refresh "+c)
		}
	}
	return names
}

func (m memory) clone() memory {
	c := memory{}
	for who, g := range m {
		c[who] = maps.Clone(g)
	}
	return c
}

func (m memory) of(who string) grant {
	if m[who] == nil {
		m[who] = grant{}
	}
	return m[who]
}

// tidy drops accounts of which nothing is known.
func (m memory) tidy() memory {
	maps.DeleteFunc(m, func(_ string, g grant) bool { return len(g) == 0 })
	return m
}

// write serializes a memory as an MSAL library would, one of several: sections
// and keys in random order, times as strings or numbers, empty fields left out
// or null, keys in mixed case.
func (m memory) write(rnd *rand.Rand) []byte {
	c := map[string]map[string]map[string]string{account: {}, "Later": {"version": {"n": "7"}}}
	mixed := rnd.Intn(4) == 0
	for _, who := range slices.Sorted(maps.Keys(m)) {
		for _, name := range slices.Sorted(maps.Keys(m[who])) {
			e := entryOf(who, name, m[who][name])
			f := map[string]string{}
			for k, v := range e.fields {
				f[k] = v.(string)
			}
			if c[e.section] == nil {
				c[e.section] = map[string]map[string]string{}
			}
			if mixed {
				e.key = strings.ToUpper(e.key[:1]) + e.key[1:]
			}
			c[e.section][e.key] = f
		}
	}
	b := shuffled(c, rnd)
	if rnd.Intn(2) == 0 {
		b = bytes.ReplaceAll(b, []byte(`"realm":"realm"`), []byte(`"note":null,"realm":"realm"`))
	}
	if rnd.Intn(2) == 0 {
		for _, name := range []string{"cached_at", "expires_on"} {
			b = unquoteNumbers(b, name)
		}
	}
	return b
}

func unquoteNumbers(b []byte, name string) []byte {
	parts := bytes.Split(b, fmt.Appendf(nil, `"%s":"`, name))
	for i, p := range parts[1:] {
		n, rest, _ := bytes.Cut(p, []byte(`"`))
		parts[i+1] = slices.Concat(n, rest)
	}
	return bytes.Join(parts, fmt.Appendf(nil, `"%s":`, name))
}

func entryOf(who, name string, at int64) ent {
	secret := fmt.Sprint(at)
	kind, rest, _ := strings.Cut(name, " ")
	client, scope, _ := strings.Cut(rest, " ")
	switch kind {
	case "account":
		return acc(who)
	case "refresh":
		if client == "family1" || client == "family2" {
			return familyRT(who, client, secret)
		}
		return rt(who, secret).with("client_id", client).as(who + "-" + env + "-refreshtoken-" + client)
	case "id":
		return idt(who, secret).with("client_id", client).as(who + "-" + env + "-idtoken-" + client)
	}
	return clientAT(who, client, scope, secret, at-now.Unix())
}

// read is the inverse of write, by encoding/json.
func read(data []byte) (memory, error) {
	m := memory{}
	if len(data) == 0 {
		return m, nil
	}
	var c map[string]map[string]map[string]any
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	for section, es := range c {
		if section == "Later" {
			continue
		}
		for key, e := range es {
			text := func(name string) string { s, _ := e[name].(string); return s }
			var at int64
			fmt.Sscan(text("secret"), &at)
			name := map[string]string{
				account: "account", refreshToken: "refresh " + text("client_id"), idToken: "id " + text("client_id"),
				accessToken: "access " + text("client_id") + " " + text("target"),
			}[section]
			g := m.of(text("home_account_id"))
			if _, twice := g[name]; twice {
				return nil, fmt.Errorf("two entries for %s (%s)", name, key)
			}
			g[name] = at
		}
	}
	return m, nil
}

// A process runs one client. Between calls of its memory's cache it may rest
// for any number of steps of others.
type process struct {
	name   string
	client string
	mem    memory
	base   []byte // what mem was last given or last gave
	known  memory // base, decoded
	held   int    // the revision that mem holds, -1 for unknown
	next   func() error
}

type world struct {
	rnd    *rand.Rand
	merge  mergeFunc
	stored []byte
	rev    int
	clock  int64
	truth  memory
	merges int // that met a change of another process
	// strangers: the clients are not of one application or one family, so a
	// sign-out by one leaves the refresh token of another.
	strangers bool
	history   []string
}

func (w *world) log(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf(format, args...))
}

// replace brings the memory up to date, as Cache.Replace does. It reports
// whether the account was there before and is not any more.
func (w *world) replace(p *process, who string) (gone bool) {
	if p.held == w.rev {
		return false
	}
	_, before := p.mem[who]["account"]
	m, err := read(w.stored)
	if err != nil {
		panic(err)
	}
	p.mem, p.base, p.known, p.held = m, w.stored, m.clone(), w.rev
	_, after := m[who]["account"]
	return before && !after
}

// export writes the memory, as Cache.Export does, and asks model to do the same
// to the truth. It fails if the two differ.
func (w *world) export(p *process, gone []tokencache.Account, what string, model func(truth memory)) error {
	ours := p.mem.write(w.rnd)
	if p.held != w.rev {
		w.merges++
	}
	merged, err := w.merge(BytesInput{Base: p.base, Ours: ours, Theirs: w.stored, Now: time.Unix(w.clock, 0)}, gone)
	if err != nil {
		return err
	}
	model(w.truth)
	w.truth.tidy()
	w.log("%s %s (held %d, stored %d)", p.name, what, p.held, w.rev)
	if !bytes.Equal(merged, w.stored) {
		w.stored, w.rev = merged, w.rev+1
	}
	p.base, p.known, p.held = ours, p.mem.clone(), -1
	got, err := read(w.stored)
	if err != nil {
		return err
	}
	if got.tidy(); !reflect.DeepEqual(got, w.truth) {
		return fmt.Errorf("stored %v\nwant   %v", got, w.truth)
	}
	return nil
}

// evidence returns when, as far as what is stored tells, somebody else got the
// refresh token that is stored: when the newest access token came that the
// process does not know. Where another client has signed the account out, the
// access token is gone, the refresh token is not, and nothing tells.
func (w *world) evidence(p *process, who string) (newest int64) {
	for n, at := range w.truth[who] {
		if strings.HasPrefix(n, "access "+p.client+" ") && p.known[who][n] != at {
			newest = max(newest, at)
		}
	}
	return newest
}

// refresh is a token request for an account: silent, or interactive. MSAL calls
// Replace before it (silent only), Replace again when the response is there,
// and then Export; other programs' Replace may be long before.
func (p *process) refresh(w *world, who string, interactive, again bool, scopes []string) {
	if !interactive {
		w.replace(p, who)
		if len(p.mem[who].refreshTokens(p.client)) == 0 {
			return // signed out
		}
	} else if !again {
		w.replace(p, "")
	}
	p.next = func() error {
		gone := false
		if again {
			gone = w.replace(p, who)
		}
		w.clock++ // the response has arrived, a second after any other
		at := w.clock
		names := []string{"refresh " + p.client, "id " + p.client}
		for _, s := range scopes {
			names = append(names, "access "+p.client+" "+s)
		}
		g := p.mem.of(who)
		for _, n := range g.refreshTokens(p.client) {
			delete(g, n)
		}
		for _, n := range names {
			g[n] = at
		}
		g["account"] = 0
		_, sawAccount := p.known[who]["account"]
		sawRefresh := p.known[who]["refresh "+p.client]
		p.next = func() error {
			var hidden []tokencache.Account
			if gone && !interactive {
				hidden = []tokencache.Account{named(strings.ToUpper(who), env)}
			}
			what := fmt.Sprintf("writes %s of %s, got at %d, interactive %v, gone %v", names, who, at, interactive, gone)
			return w.export(p, hidden, what, func(truth memory) {
				g := truth.of(who)
				if hidden != nil {
					return
				}
				_, there := g["account"]
				signedOut := sawAccount && !there
				for _, n := range names {
					old, ok := g[n]
					if n == names[0] { // the refresh token
						for _, n := range g.refreshTokens(p.client) {
							old, ok = g[n], true
							if old < at {
								delete(g, n)
							}
						}
					}
					if signedOut && !ok {
						continue
					}
					if w.strangers && strings.HasPrefix(n, "refresh app") && old != sawRefresh {
						old = w.evidence(p, who)
					}
					if old > at {
						continue
					}
					g[n] = at
				}
				if !signedOut {
					g["account"] = 0
				}
			})
		}
		return nil
	}
	if p.held == -1 && !again && !interactive {
		panic("a memory of unknown revision")
	}
}

// signOut removes an account as MSAL does: all but other clients' refresh
// tokens.
func (p *process) signOut(w *world, who string) {
	w.replace(p, "")
	if _, ok := p.mem[who]["account"]; !ok {
		return
	}
	mine := func(name string) bool {
		return !strings.HasPrefix(name, "refresh ") || name == "refresh "+p.client || strings.HasPrefix(name, "refresh family")
	}
	maps.DeleteFunc(p.mem[who], func(name string, _ int64) bool { return mine(name) })
	left := maps.Clone(p.mem[who])
	p.next = func() error {
		return w.export(p, nil, "signs "+who+" out", func(truth memory) {
			maps.DeleteFunc(truth[who], func(name string, _ int64) bool {
				_, ok := left[name]
				return !ok
			})
		})
	}
}

// expire drops an access token that is not the client's newest.
func (p *process) expire(w *world, who string) {
	w.replace(p, who)
	var names []string
	newest := int64(0)
	for n, at := range p.mem[who] {
		if strings.HasPrefix(n, "access "+p.client+" ") {
			names = append(names, n)
			newest = max(newest, at)
		}
	}
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(n string) bool { return p.mem[who][n] == newest })
	if len(names) == 0 {
		return
	}
	name := pick(w.rnd, names...)
	was := p.mem[who][name]
	delete(p.mem[who], name)
	p.next = func() error {
		return w.export(p, nil, "drops "+name+" of "+who, func(truth memory) {
			if truth[who][name] == was {
				delete(truth[who], name)
			}
		})
	}
}

// A mergeFunc merges for a process that knows which accounts are gone.
type mergeFunc func(in BytesInput, gone []tokencache.Account) ([]byte, error)

// knowing returns the mergeFunc that takes what is gone out of ours first.
func knowing(merge func(BytesInput) ([]byte, error)) mergeFunc {
	return func(in BytesInput, gone []tokencache.Account) ([]byte, error) { return merge(withdrawn(in, gone)) }
}

// simulate lets a few processes take some hundred steps. The error says what
// went wrong, with the history.
func simulate(rnd *rand.Rand, merge mergeFunc) (merges int, err error) {
	w := &world{rnd: rnd, merge: merge, clock: now.Unix(), truth: memory{}}
	clients := pick(rnd, []string{"app"}, []string{"family1", "family2"}, []string{"app", "app", "app2", "family1", "family2"})
	w.strangers = len(clients) > 2
	var ps []*process
	for i := range 2 + rnd.Intn(4) {
		ps = append(ps, &process{name: fmt.Sprint("P", i), client: pick(rnd, clients...), mem: memory{}, held: -1})
	}
	for range 200 {
		p := pick(rnd, ps...)
		if p.next != nil {
			next := p.next
			p.next = nil
			if err := next(); err != nil {
				return w.merges, fmt.Errorf("%w\n%s", err, strings.Join(w.history, "\n"))
			}
			continue
		}
		who := pick(rnd, "ann", "bob")
		var scopes []string
		for range 1 + rnd.Intn(2) {
			scopes = append(scopes, pick(rnd, "mail", "files", "calendar"))
		}
		switch rnd.Intn(10) {
		case 0:
			p.signOut(w, who)
		case 1:
			p.expire(w, who)
		case 2, 3:
			p.refresh(w, who, true, rnd.Intn(2) == 0, scopes)
		default:
			p.refresh(w, who, false, rnd.Intn(2) == 0, scopes)
		}
	}
	return w.merges, nil
}

func TestSimulation(t *testing.T) {
	rnd, runs := random(t, 120)
	merges := 0
	for range runs {
		n, err := simulate(rnd, knowing(func(in BytesInput) ([]byte, error) { return mustMergeOnce(t, in), nil }))
		require.NoError(t, err)
		merges += n
	}
	t.Logf("%d writes met a change of another process", merges)
	require.Greater(t, merges, 10*runs)
}

// TestSimulationControls: the simulation notices a merge that is wrong.
func TestSimulationControls(t *testing.T) {
	wrong := map[string]func(BytesInput) ([]byte, error){
		"the last writer wins": func(in BytesInput) ([]byte, error) { return in.Ours, nil },
		"the first writer wins": func(in BytesInput) ([]byte, error) {
			if len(in.Theirs) > 0 && !bytes.Equal(in.Base, in.Theirs) {
				return in.Theirs, nil
			}
			return in.Ours, nil
		},
		"no base": func(in BytesInput) ([]byte, error) {
			in.BaseUnknown = true
			got, _, err := Bytes(in)
			return got, err
		},
	}
	for name, f := range controls {
		if f.noCloud || f.noBack {
			continue // the simulation has one name of one cloud, and no sign-in after a failed read
		}
		wrong[name] = func(in BytesInput) ([]byte, error) { return refMerge(in, f) }
	}
	rules := map[string]mergeFunc{
		"no account gone": func(in BytesInput, _ []tokencache.Account) ([]byte, error) { return refMerge(in, faults{}) },
	}
	for name, merge := range wrong {
		rules[name] = knowing(merge)
	}
	for name, merge := range rules {
		t.Run(name, func(t *testing.T) {
			rnd, _ := random(t, 0)
			for range 500 {
				if _, err := simulate(rnd, merge); err != nil {
					return
				}
			}
			t.Fatal("not noticed")
		})
	}
	t.Run("none", func(t *testing.T) {
		rnd, runs := random(t, 20)
		for range runs {
			_, err := simulate(rnd, knowing(func(in BytesInput) ([]byte, error) { return refMerge(in, faults{}) }))
			require.NoError(t, err)
		}
	})
}
