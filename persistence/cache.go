package persistence

import (
	"context"
	"errors"
	"fmt"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/replica"
	"github.com/tokenkeep/tokenkeep/internal/signedout"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/weakmap"
)

// Cache is one stored token cache, shared by any number of goroutines, MSAL
// clients and processes. None of them loses another's tokens. It is MSAL Go's
// [cache.ExportReplace]: pass it to public.WithCache or confidential.WithCache.
//
// # Reading
//
// Replace gives an in-memory cache what is stored. It does nothing if that
// in-memory cache holds it already, which costs one stat with a file backend.
// In-memory caches are told apart by their address, so an Unmarshaler that is not
// a pointer is given everything at each Replace.
//
// # Writing
//
// Export stores an in-memory cache. What other writers stored since this
// in-memory cache last read is merged in, entry by entry: every independent
// change survives, and the newer of two tokens stays. MSAL's partition key
// separates nothing here: all accounts share the cache, as on a desktop.
//
// # Entries that MSAL cannot read
//
// One entry that MSAL Go cannot read makes it refuse all that is stored. Such
// entries are left out of what an in-memory cache is given and of what it stores
// next, and a warning names them. In sections that MSAL does not know, nothing is
// left out.
//
// # Signing out
//
// A sign-out that has completed, in any process, is not undone by a refresh that
// was under way, however many there were, also where saves had failed and under
// any name of the cloud. Until the user signs in again, nothing of the old session
// is stored.
//
// That has four limits. A sign-in that is itself under way is not stopped: a user
// who finishes it after the sign-out is signed in. If another process, or another
// client by RemoveAccount, signs the user out and in again before a client looks, a
// refresh that this client had under way may be stored beside the new sign-in. A
// confidential client that many requests share should give each call the request's
// own context, which is how a new sign-in is told from an old refresh: where calls
// share one, a sign-in with a client that saw the account signed out is not stored
// for five minutes after that. And MSAL's RemoveAccount removes an account under the
// one name of the cloud that it is given: remove all that Accounts lists, or call
// [Cache.SignOut].
//
// # Storage errors
//
// If its cache cannot be read or written, MSAL reports a successful sign-in as
// failed, and the new refresh token is lost while the old one no longer works.
// Unless [WithStrict] is given, a Cache therefore tolerates storage errors: an
// Export that fails keeps its bytes in memory, where the next Export tries again,
// and a Replace that fails leaves the in-memory cache as it is. Four things fail
// the call all the same: the first Replace of an in-memory cache, an Export that
// signs an account out, data that cannot be merged, and a context that was
// cancelled. A sign-out that failed has not happened, and is not tried again by
// itself. Failures are logged; see [WithLogger].
//
// A context without a deadline gets one, [DefaultTimeout] by default. A Cache
// holds no file, goroutine or connection between calls, except for a wait for a
// lock whose caller gave up and a [Cache.Watch] whose context has not ended. So
// there is nothing to close.
type Cache struct {
	engine
	memories  *weakmap.Map[*clientMemory]
	anonymous *clientMemory // stands for all in-memory caches that cannot be told apart
	removals  removals
}

var _ cache.ExportReplace = (*Cache)(nil)

func init() {
	signedout.Everybody = func(c any) uint64 { return c.(*Cache).removals.everything() }
}

// New returns a Cache that keeps its data in p. It does no I/O.
//
// Writers must be told apart somehow: New fails unless p is a [Versioned] or a
// [Locker], or [WithLockFile] is given. Where p is not a Versioned, every Replace
// loads the data, though unchanged data is not parsed again.
func New(p Persistence, opts ...Option) (*Cache, error) {
	if isNil(p) {
		return nil, &Error{Op: "open", Backend: "cache", Err: errors.New("the Persistence is nil"),
			Remedy: "Pass New the backend that is to keep the cache."}
	}
	s, err := set(opts)
	if err != nil {
		return nil, failure(Describe(p), "open", err, "Correct the option that New was given.")
	}
	e, err := newEngine(s, p)
	if err != nil {
		return nil, err
	}
	c := &Cache{engine: e}
	c.memories = weakmap.New(func() *clientMemory { return newClientMemory(&c.removals) })
	c.anonymous = newClientMemory(&c.removals)
	c.anonymous.replica, c.anonymous.initialized = replica.Anonymous(), true
	return c, nil
}

// Describe says what keeps the cache and where.
func (c *Cache) Describe() Description { return Describe(c.store) }

// Replace makes u hold what is stored, unless it does already: it is half of
// [cache.ExportReplace]. See [Cache] for when it fails.
//
// An in-memory cache that Replace sees for the first time is given an empty cache
// before anything else. One that refuses it is not of the format that the MSAL
// libraries share (in MSAL Go 1.10 that of on-behalf-of tokens) and is left alone
// from then on: its tokens live in memory only.
func (c *Cache) Replace(ctx context.Context, u cache.Unmarshaler, h cache.ReplaceHints) error {
	if isNil(u) {
		return c.fail("load", errors.New("the Unmarshaler is nil"), "Pass Replace an in-memory cache.")
	}
	m, unlock, err := c.memoryOf(ctx, "load", u)
	if err != nil {
		return err
	}
	defer unlock()
	r := c.resident(m)
	if !m.initialized && !m.incompatible {
		r.empty = true
		m.initialized = emptied(u)
		m.incompatible = !m.initialized
	}
	if m.incompatible {
		return nil
	}
	return c.replace(ctx, u, r, h)
}

// Export stores what m holds, merged with what others stored since m was last
// read or stored: it is half of [cache.ExportReplace]. If nothing differs from
// what is stored, nothing is written. See [Cache] for when it fails.
func (c *Cache) Export(ctx context.Context, m cache.Marshaler, h cache.ExportHints) error {
	if isNil(m) {
		return c.fail("save", errors.New("the Marshaler is nil"), "Pass Export an in-memory cache.")
	}
	of, unlock, err := c.memoryOf(ctx, "save", m)
	if err != nil {
		return err
	}
	defer unlock()
	if of.incompatible {
		return nil
	}
	return c.export(ctx, m, c.resident(of), h)
}

// memoryOf finds what is known of the in-memory cache v, and locks it.
func (c *Cache) memoryOf(ctx context.Context, op string, v any) (m *clientMemory, unlock func(), err error) {
	m, ok := c.memories.Of(v)
	if !ok {
		m = c.anonymous
	}
	if err := m.lock(ctx, &c.settings); err != nil {
		return nil, nil, c.fail(op, err, "")
	}
	m.tell(&c.settings)
	return m, m.unlock, nil
}

func (c *Cache) resident(m *clientMemory) resident {
	m.others.removals = &c.removals
	if m.replica.Pending() == nil {
		m.others.removed()
	}
	m.others.seen = c.removals.count()
	return resident{Replica: m.replica, others: &m.others}
}

// Load returns the stored cache, or ErrNotFound. Load and [Cache.Update] keep any
// bytes, not only a token cache.
func (c *Cache) Load(ctx context.Context) ([]byte, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return c.store.Load(ctx)
}

// Update replaces the stored cache by what edit makes of it, without another writer in
// between. A nil current means that nothing is stored; a nil result means that nothing
// changes. edit must not call this Cache's Update, Export or Delete, and may be called
// again if a writer that does not use the lock has saved in between. Update returns
// edit's error as it is. Storage errors are always returned.
func (c *Cache) Update(ctx context.Context, edit func(current []byte) ([]byte, error)) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return c.locked(ctx, func() error {
		return c.untilNoConflict(ctx, func() error {
			current, rev, err := c.load(ctx)
			if err != nil {
				return err
			}
			if rev != "" && current == nil {
				current = []byte{}
			}
			edited, err := edit(current)
			if err != nil || edited == nil {
				return err
			}
			_, err = c.store.SaveIf(ctx, edited, rev)
			return err
		})
	})
}

// Delete removes the stored cache, and what of it could not be stored yet.
// In-memory caches notice at their next Replace.
func (c *Cache) Delete(ctx context.Context) error {
	// Before the removal: what an Export stores after it is not to be removed, and
	// what was pending is not to be stored between the two.
	c.removals.add(replica.Removed{All: true})
	return c.delete(ctx)
}

// SignOut removes an account from the stored cache: every entry of it, of any
// client and under any name of its cloud. It is for programs that have no MSAL
// client at hand; with one, RemoveAccount does the same for that client. Clients
// that are in use notice at their next call. It succeeds where the account is not
// stored. Storage errors are always returned, and then nothing was removed.
//
// It ends no session at the authority, and access tokens that are out stay valid
// until they expire.
func (c *Cache) SignOut(ctx context.Context, account Account) error {
	of := account.identity()
	if of.HomeAccountID == "" || of.Environment == "" {
		return c.fail("delete", errors.New("the account has no HomeAccountID or no Environment"), "Pass SignOut an account as Watch or MSAL's Accounts returns it.")
	}
	out := replica.Removed{Accounts: []tokencache.Account{of}}
	c.removals.add(out)
	return c.Update(ctx, func(current []byte) ([]byte, error) {
		d, err := tokencache.Parse(tokencache.Trim(current))
		if err != nil {
			return nil, c.unmergeable(merge.ErrTheirs)
		}
		rest, removed := d.Filter(func(_ string, e *tokencache.Entry) bool { return !out.Has(e.Account()) })
		if removed == 0 {
			return nil, nil
		}
		return rest, nil
	})
}

// SignOutAll removes all accounts, as [Cache.SignOut] does it, and all tokens of
// package tokensource. [Entries] stay, and so do the tokens of applications
// themselves, which are no account's. It succeeds if nobody is signed in.
func (c *Cache) SignOutAll(ctx context.Context) error {
	out := replica.Removed{All: true}
	c.removals.add(out)
	return c.Update(ctx, func(current []byte) ([]byte, error) {
		d, err := tokencache.Parse(current)
		if err != nil {
			return nil, c.unmergeable(merge.ErrTheirs)
		}
		rest, removed := d.Filter(func(section string, e *tokencache.Entry) bool {
			return section != tokencache.OAuth2Token && !out.Has(e.Account())
		})
		if removed == 0 {
			return nil, nil
		}
		return rest, nil
	})
}

// Exclusive runs fn while no other goroutine or process runs one under the same
// name on this cache. It waits no longer than ctx, or the timeout if ctx has no
// deadline; fn gets ctx itself. fn may use the Cache, but for Exclusive with a
// name that it is under.
//
// Put it around a silent sign-in, with the account's id as the name, where the
// provider rotates refresh tokens: two processes that spend one refresh token
// are taken for a thief and a victim, and both are signed out (RFC 9700,
// section 4.14). Each name leaves a small lock file, so names should be few. An
// Exclusive that waits for nobody writes nothing and costs a few microseconds more
// than fn (BenchmarkExclusive). Package tokensource does this by itself.
//
// A program whose own interface locks and unlocks in two calls uses
// [FileLock.LockName] of a lock file of its own instead, and may use the Cache
// between them.
//
// It fails with ErrUnavailable where the backend brings no [NamedLocker] and
// [WithLockFile] was not given. fn's error is returned as it is.
func (c *Cache) Exclusive(ctx context.Context, name string, fn func(context.Context) error) error {
	named, ok := c.lock.(NamedLocker)
	if !ok {
		return c.fail("lock", fmt.Errorf("%w: this cache has no named locks", ErrUnavailable), "Give New the option WithLockFile.")
	}
	bounded, cancel := c.bounded(ctx)
	unlock, err := named.LockName(bounded, name)
	cancel()
	if err != nil {
		return err
	}
	defer c.unlock(unlock)
	return fn(ctx)
}
