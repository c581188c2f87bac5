package persistence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Partitioned is the token caches of many accounts, each stored by itself: for
// a web app or an API, whose users share nothing but a server. It implements
// MSAL Go's [cache.ExportReplace] for confidential clients: hand it to
// confidential.WithCache. What MSAL calls the partition key says which cache is
// meant: the home account id of a user, or a name for the tokens that the
// application has of its own. Each is handled as a [Cache] handles its one.
//
// # A client for each request
//
// An MSAL client has one memory, and it holds one account at a time. Users who
// are served at once by one client take it from each other, and their silent
// sign-ins fail with "no token found". So make a client for each request:
//
//	client, err := confidential.New(authority, clientID, credential,
//		confidential.WithCache(partitioned), // one for all
//		confidential.WithHTTPClient(httpClient), // one for all
//		confidential.WithInstanceDiscovery(false))
//
// A client is cheap and leaves nothing behind. Only instance discovery would
// make it dear: each new client asks the network for the names of the authority,
// which a program that names a known authority has no need of.
//
// Whatever a client does, into the cache of an account go no other account's
// entries.
//
// # Signing out
//
// RemoveAccount of a client names no account to its cache, so it is refused, and
// so is a public client's Accounts. Use [Partitioned.SignOut], and Account with
// an id.
//
// # On-behalf-of
//
// MSAL Go 1.10 keeps tokens of the on-behalf-of flow in a memory of its own and
// cannot store them. They work, are kept for as long as the client is, and never
// get into a stored cache. An API that wants them for longer keeps one client
// for that flow alone, which many users may share; it grows with their number.
//
// # Trouble
//
// As with a [Cache], and unless [WithStrict] is given, a sign-in or a refresh
// succeeds though its tokens cannot be stored. They are kept in this process
// until they are: the next client that asks for the account is given them and
// tries again. A user who is signed out elsewhere stays so, unless the sign-in
// itself could not be stored yet: then nothing elsewhere tells of it. Of at most
// 1,024 accounts tokens are kept like that, and for no longer than an hour where
// there are so many; of more, and with WithStrict, Export fails. A Replace that cannot read fails unless the in-memory cache has been
// given this account's data since it was last another's.
//
// A Partitioned is safe for concurrent use, in any number of processes on the
// same data. It holds no connection, file or goroutine, so there is nothing to
// close.
type Partitioned struct {
	open  func(ctx context.Context, partition string) (Persistence, error)
	front *Cache // the options, the log, and what is remembered of in-memory caches

	mu      sync.Mutex
	unsaved map[string]*unsaved
}

var _ cache.ExportReplace = (*Partitioned)(nil)

// unsavedFor is how long, at least, what could not be stored is kept for a user
// who does not come back. Tests shorten it.
var unsavedFor = time.Hour

const (
	maxUnsaved = 1024 // accounts
	// maxRecent is how many accounts' base is remembered of one in-memory cache.
	// It has one account or two, unless users share a client against all advice.
	maxRecent = 16
)

// accounts is what a Partitioned remembers of one in-memory cache.
type accounts struct {
	now    *account   // whose data it holds; nil: nobody's
	recent []*account // whose it held, the last one last
}

// account is an in-memory cache while it is of one partition.
type account struct {
	partition string
	cache     *Cache
	memory    *inMemory
	unsaved   *unsaved // where memory's pending bytes are kept
}

// unsaved are the tokens of one partition that could not be stored.
type unsaved struct {
	since     time.Time
	base      []byte
	baseKnown bool
	ours      []byte
	refused   []tokencache.Account
}

// NewPartitioned returns a Partitioned that keeps the data of each partition
// in the Persistence that open returns for it: a [Versioned] or, failing that,
// a [Locker]. With [WithLockFile] it may be neither, but then all accounts wait
// for one lock.
//
// open is called for nearly every request, by many goroutines at once, and
// should do no I/O. What it returns for one partition is always on the same
// data, and for two never. A partition is as long as the authority makes it and
// may have any character. open's errors are returned as they are.
func NewPartitioned(open func(ctx context.Context, partition string) (Persistence, error), opts ...Option) (*Partitioned, error) {
	if open == nil {
		return nil, &Error{Op: "open", Backend: partitioned, Err: errors.New("open is nil"),
			Remedy: "Pass NewPartitioned a function that returns the Persistence of a partition."}
	}
	front, err := New(noStore{NewMemory()}, opts...)
	if err != nil {
		return nil, err
	}
	return &Partitioned{open: open, front: front, unsaved: map[string]*unsaved{}}, nil
}

const partitioned = "partitioned"

// noStore stands where the front Cache, which stores nothing, has its store.
type noStore struct{ Versioned }

// Describe implements [Describer].
func (noStore) Describe() Description { return Description{Backend: partitioned} }

// Replace implements [cache.ExportReplace]: it makes u hold what is stored of
// the hinted partition, and nothing else, unless it does already. A hint without
// a partition is refused. An in-memory cache that does not take MSAL's shared
// format is left alone.
func (p *Partitioned) Replace(ctx context.Context, u cache.Unmarshaler, h cache.ReplaceHints) error {
	if isNil(u) {
		return p.front.fail("load", errors.New("the Unmarshaler is nil"), "Pass Replace an in-memory cache.")
	}
	m, release, err := p.enter(ctx, "load", u, h.PartitionKey)
	if err != nil {
		return err
	}
	defer release()
	if m.foreign {
		return nil
	}
	a := m.accounts.now
	if a == nil || a.partition != h.PartitionKey {
		// Whatever fails from here on, the last user's tokens must be gone.
		m.accounts.now = nil
		switch err := u.Unmarshal([]byte("{}")); {
		case err != nil && !m.met:
			m.foreign = true
			return nil
		case err != nil:
			return p.front.fail("load", hidden{"the in-memory cache could not be emptied", err}, "")
		}
		m.met = true
		if a, err = p.turnTo(ctx, m.accounts, h.PartitionKey); err != nil {
			p.front.report("replace", "tokenkeep: cannot read the stored tokens", err)
			return err
		}
	}
	p.adopt(a)
	if err := a.cache.replace(ctx, u, a.memory, h); err != nil {
		return err
	}
	p.retry(ctx, a)
	return nil
}

// Export implements [cache.ExportReplace]: it stores what m holds of the hinted
// partition, merged with what others stored, as [Cache.Export] does. Entries of
// other accounts are left out. Where m was last given another partition, nothing
// is stored: so MSAL Go 1.10 calls it after an on-behalf-of request. A hint
// without a partition is refused.
func (p *Partitioned) Export(ctx context.Context, m cache.Marshaler, h cache.ExportHints) error {
	if isNil(m) {
		return p.front.fail("save", errors.New("the Marshaler is nil"), "Pass Export an in-memory cache.")
	}
	im, release, err := p.enter(ctx, "save", m, h.PartitionKey)
	if err != nil {
		return err
	}
	defer release()
	a := im.accounts.now
	if im.foreign || a == nil || a.partition != h.PartitionKey {
		return nil
	}
	if a.signedOut() {
		// What is left of the response without the account is of no use.
		a.drop()
		p.settle(a)
		return nil
	}
	err = a.cache.export(ctx, only{m, a}, a.memory, h)
	switch {
	case a.memory.pending == nil:
		p.settle(a)
		return err
	case p.front.strict, err != nil && !errors.Is(ctx.Err(), context.Canceled):
		// Whoever was told that it failed must not find it stored later.
	case p.keep(a):
		return err
	case err == nil:
		err = p.front.fail("save", errors.New("the tokens of too many accounts could not be stored"), "See the log for why.")
	}
	a.drop()
	return err
}

// SignOut removes the cache of an account for good: also what a refresh of it
// that is under way, here or on another server, is about to store. It succeeds
// where nothing is stored. homeAccountID is HomeAccountID of an MSAL account,
// as MSAL writes it.
//
// It ends no session of the program and none at the authority, and access
// tokens that are out stay valid until they expire.
func (p *Partitioned) SignOut(ctx context.Context, homeAccountID string) error {
	if homeAccountID == "" {
		return p.refuse("delete")
	}
	c, err := p.cacheOf(ctx, homeAccountID)
	if err != nil {
		return err
	}
	if err := c.Delete(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.unsaved, homeAccountID)
	return nil
}

// enter finds what is remembered of v and takes its turn.
func (p *Partitioned) enter(ctx context.Context, op string, v any, partition string) (m *inMemory, release func(), err error) {
	if partition == "" {
		return nil, nil, p.refuse(op)
	}
	m = p.front.inMemoryOf(v)
	if m.nameless {
		return nil, nil, p.front.fail(op, errors.New("the in-memory cache is no pointer, so it cannot be told from another user's"), "Pass a pointer.")
	}
	select {
	case m.turn <- struct{}{}:
	default: // only who waits needs a timeout
		bounded, cancel := p.front.bounded(ctx)
		defer cancel()
		if err := m.acquire(bounded); err != nil {
			return nil, nil, p.front.fail(op, err, "")
		}
	}
	if m.accounts == nil {
		m.accounts = new(accounts)
	}
	return m, m.release, nil
}

func (p *Partitioned) refuse(op string) error {
	return p.front.fail(op, errors.New("no account is named, and each has a cache of its own"),
		"To sign a user out call SignOut with the account's id in place of RemoveAccount; to find an account call Account with its id.")
}

// cacheOf returns a Cache of the partition.
func (p *Partitioned) cacheOf(ctx context.Context, partition string) (*Cache, error) {
	store, err := p.open(ctx, partition)
	if err == nil && isNil(store) {
		err = p.front.fail("open", errors.New("open returned no Persistence"), "")
	}
	if err != nil {
		return nil, err
	}
	c := &Cache{lock: p.front.lock, strict: p.front.strict, logger: p.front.logger, timeout: p.front.timeout, logged: p.front.logged}
	if err := c.keepIn(store); err != nil {
		return nil, err
	}
	return c, nil
}

// turnTo makes the partition the current one of an in-memory cache that holds
// nothing now.
func (p *Partitioned) turnTo(ctx context.Context, of *accounts, partition string) (*account, error) {
	var a *account
	if i := slices.IndexFunc(of.recent, func(a *account) bool { return a.partition == partition }); i >= 0 {
		a = of.recent[i]
		of.recent = slices.Delete(of.recent, i, i+1)
	} else {
		c, err := p.cacheOf(ctx, partition)
		if err != nil {
			return nil, err
		}
		a = &account{partition: partition, cache: c, memory: newInMemory()}
		if len(of.recent) == maxRecent {
			of.recent = slices.Delete(of.recent, 0, 1)
		}
	}
	of.recent = append(of.recent, a)
	of.now = a
	// The base is kept: it tells who was signed out in the meantime.
	a.memory.met, a.memory.given, a.memory.held = true, false, false
	return a, nil
}

// signedOut tells whether the Replace just before found that the account was
// signed out while MSAL was asking for tokens, and nothing was stored anew.
func (a *account) signedOut() bool {
	return a.memory.held && a.memory.rev == "" && len(a.memory.goneFor(a.partition)) > 0
}

// drop forgets what could not be stored; the next Replace reads anew.
func (a *account) drop() { a.memory.pending, a.memory.refused, a.memory.held = nil, nil, false }

// only is an in-memory cache without other accounts' entries.
type only struct {
	cache.Marshaler
	of *account
}

func (o only) Marshal() ([]byte, error) {
	data, err := o.Marshaler.Marshal()
	if err != nil {
		return nil, err
	}
	own, out, err := keepOnly(data, o.of.partition)
	if err != nil {
		return data, nil // it is for Export to say what is wrong with it
	}
	if out > 0 {
		o.of.cache.report("other account", fmt.Sprintf("tokenkeep: %d entries of another account were not stored in this one's cache; use an MSAL client for each request", out), nil)
	}
	return own, nil
}

// adopt makes the tokens of a's partition that could not be stored a's own.
func (p *Partitioned) adopt(a *account) {
	p.mu.Lock()
	u := p.unsaved[a.partition]
	p.mu.Unlock()
	if u == a.unsaved {
		return
	}
	// Somebody has stored them since, or added to them, or signed the user out.
	a.drop()
	a.unsaved = u
	if u != nil {
		a.memory.base, a.memory.baseKnown = bytes.Clone(u.base), u.baseKnown // base is written into
		a.memory.pending, a.memory.refused = bytes.Clone(u.ours), u.refused
	}
}

// retry tries to store what could not be stored before. That it could not was
// logged the first time.
func (p *Partitioned) retry(ctx context.Context, a *account) {
	switch {
	case a.memory.pending == nil:
		p.settle(a)
	case !a.memory.held: // nothing could be read either
	case a.signedOut():
		a.drop()
		p.settle(a)
	default:
		bounded, cancel := a.cache.bounded(ctx)
		defer cancel()
		if a.cache.write(bounded, a.memory, a.memory.pending, a.partition) == nil {
			p.settle(a)
		}
	}
}

// keep keeps a's pending bytes for the next client, with those of others. It
// reports false if there is no room.
func (p *Partitioned) keep(a *account) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.unsaved[a.partition]
	if before == nil && len(p.unsaved) >= maxUnsaved {
		// Their users have not come back.
		maps.DeleteFunc(p.unsaved, func(_ string, u *unsaved) bool { return time.Since(u.since) > unsavedFor })
		if len(p.unsaved) >= maxUnsaved {
			return false
		}
	}
	m := a.memory
	u := &unsaved{since: time.Now(), base: bytes.Clone(m.base), baseKnown: m.baseKnown, ours: bytes.Clone(m.pending), refused: slices.Clone(m.refused)}
	if before != nil && before != a.unsaved {
		if both, _, err := merge.Bytes(merge.BytesInput{Base: u.base, BaseUnknown: !u.baseKnown, Ours: u.ours, Theirs: before.ours}); err == nil {
			u.ours = bytes.Clone(both)
		}
	}
	p.unsaved[a.partition], a.unsaved = u, u
	return true
}

// settle forgets what a had pending.
func (p *Partitioned) settle(a *account) {
	if a.unsaved == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unsaved[a.partition] == a.unsaved {
		delete(p.unsaved, a.partition)
	}
	a.unsaved = nil
}
