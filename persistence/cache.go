package persistence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Cache is one stored token cache, shared by any number of goroutines, MSAL
// clients and processes, none of which loses another's tokens. It implements
// MSAL Go's [cache.ExportReplace]: hand it to public.WithCache or
// confidential.WithCache.
//
// # Reading
//
// Replace gives an in-memory cache what is stored, and does nothing at all when
// that very in-memory cache holds it already; with a file backend that costs
// one stat. In-memory caches are told apart by their address, so an
// Unmarshaler that is no pointer is always given everything anew.
//
// # Writing
//
// Export stores an in-memory cache. What other writers stored since this
// in-memory cache last read is merged in, entry by entry, so that every
// independent change survives, the newer of two tokens stays, and a sign-out
// is not undone by a refresh that was under way. MSAL's partition key is no
// partition here: all accounts share the cache, as on a desktop.
//
// # Trouble
//
// MSAL fails a sign-in that succeeded if its cache cannot be read or written,
// and then the new refresh token is lost although the old one is spent. So,
// unless [WithStrict] is given, the sign-in goes on where the storage fails: an Export that fails keeps its bytes in memory,
// where the next Export tries again, and a Replace that fails leaves the
// in-memory cache as it is. Four things fail the call all the same: the first
// Replace of an in-memory cache, an Export that signs an account out, data
// that cannot be merged, and a context that was cancelled. Every failure is
// logged, once per kind.
//
// A context without a deadline gets one, [DefaultTimeout] by default. A Cache
// holds no file, goroutine or connection between calls, but for a wait for a
// lock whose caller gave up and a [Cache.Watch] whose context has not ended, so
// there is nothing to close.
type Cache struct {
	store   Versioned
	lock    Locker // nil: SaveIf alone decides between writers
	strict  bool
	logger  *slog.Logger // nil: slog.Default()
	timeout time.Duration

	nameless *inMemory

	logged *kinds

	mu       sync.Mutex
	inMemory map[identity]*inMemory
}

var _ cache.ExportReplace = (*Cache)(nil)

// New returns a Cache that keeps its data in p. It does no I/O.
//
// Writers must be told apart somehow: New fails unless p is a [Versioned] or a
// [Locker], or [WithLockFile] is given. Where p is no Versioned, every Replace
// loads the data, though unchanged data is not parsed again.
func New(p Persistence, opts ...Option) (*Cache, error) {
	c := &Cache{timeout: DefaultTimeout, nameless: newInMemory(), inMemory: map[identity]*inMemory{}, logged: new(kinds)}
	c.nameless.nameless, c.nameless.met = true, true
	if isNil(p) {
		return nil, &Error{Op: "open", Backend: "cache", Err: errors.New("the Persistence is nil"),
			Remedy: "Pass New the backend that is to keep the cache."}
	}
	d := Describe(p)
	for _, o := range opts {
		if o == nil {
			continue
		}
		if err := o(c); err != nil {
			return nil, &Error{Op: "open", Backend: d.Backend, Location: d.Location, Err: err, Remedy: "Correct the option that New was given."}
		}
	}
	if err := c.keepIn(p); err != nil {
		return nil, err
	}
	return c, nil
}

// keepIn makes p the place where c keeps its data.
func (c *Cache) keepIn(p Persistence) error {
	if l, ok := p.(Locker); ok {
		c.lock = l
	}
	v, ok := p.(Versioned)
	switch {
	case ok:
		c.store = v
	case c.lock == nil:
		d := Describe(p)
		return &Error{Op: "open", Backend: d.Backend, Location: d.Location,
			Err:    errors.New("the Persistence is neither a Versioned nor a Locker, so writers would overwrite each other's tokens"),
			Remedy: "Give New the option WithLockFile."}
	default:
		c.store = hashed{p}
	}
	return nil
}

// Describe says what keeps the cache and where.
func (c *Cache) Describe() Description { return Describe(c.store) }

// Replace implements [cache.ExportReplace]: it makes u hold what is stored,
// unless it does already. See [Cache] for when it fails.
//
// An in-memory cache that is met for the first time is given an empty cache
// before anything else. One that refuses it is not of the format that the MSAL
// libraries share (in MSAL Go 1.10 that of on-behalf-of tokens) and is left alone
// from then on: its tokens live in memory only.
func (c *Cache) Replace(ctx context.Context, u cache.Unmarshaler, h cache.ReplaceHints) error {
	if isNil(u) {
		return c.fail("load", errors.New("the Unmarshaler is nil"), "Pass Replace an in-memory cache.")
	}
	return c.replace(ctx, u, c.inMemoryOf(u), h)
}

// replace is Replace for u, which m is of.
func (c *Cache) replace(ctx context.Context, u cache.Unmarshaler, m *inMemory, h cache.ReplaceHints) error {
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	if err := m.acquire(bounded); err != nil {
		return c.fail("load", err, "")
	}
	defer m.release()
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return c.fail("load", err, "")
	}
	if m.foreign {
		return nil
	}
	m.hear(false, h.PartitionKey)
	fresh := !m.met
	if fresh {
		if u.Unmarshal([]byte("{}")) != nil {
			m.foreign = true
			return nil
		}
		m.met = true
	}
	err := c.refresh(bounded, u, m, fresh)
	switch {
	case err == nil:
		return nil
	case !m.given || c.strict || errors.Is(ctx.Err(), context.Canceled):
		c.report("replace", "tokenkeep: cannot read the stored tokens", err)
		return err
	}
	c.report("replace", "tokenkeep: cannot read the stored tokens; going on with those in memory", err)
	return nil
}

// refresh brings u, which m is of, up to date. fresh says that it is empty.
func (c *Cache) refresh(ctx context.Context, u cache.Unmarshaler, m *inMemory, fresh bool) error {
	if m.held {
		rev, err := c.store.Revision(ctx)
		if err != nil {
			return err
		}
		if m.rev == rev {
			return nil
		}
	}
	data, rev, err := c.load(ctx)
	if err != nil {
		return err
	}
	give := data
	if m.pending != nil {
		// What could not be stored yet must not leave the memory now.
		give, _, err = merge.Bytes(merge.BytesInput{Base: m.base, BaseUnknown: !m.baseKnown, Ours: m.pending, Theirs: data, Gone: m.refused, Now: time.Now()})
		if err != nil {
			return c.unmergeable(err)
		}
		m.pending = give
	}
	if len(give) == 0 && fresh {
		m.remember(data, rev)
		return nil
	}
	if len(give) == 0 {
		give = []byte("{}")
	}
	// The clone keeps base what it is, should u hold on to the slice.
	if err := u.Unmarshal(bytes.Clone(give)); err != nil {
		m.held = false
		return c.unreadable(data, err)
	}
	m.remember(data, rev)
	return nil
}

// Export implements [cache.ExportReplace]: it stores what m holds, merged with
// what others stored since m was last given or gave anything. If nothing
// differs from what is stored, nothing is written. See [Cache] for when it
// fails.
func (c *Cache) Export(ctx context.Context, m cache.Marshaler, h cache.ExportHints) error {
	if isNil(m) {
		return c.fail("save", errors.New("the Marshaler is nil"), "Pass Export an in-memory cache.")
	}
	return c.export(ctx, m, c.inMemoryOf(m), h)
}

// export is Export for m, which im is of.
func (c *Cache) export(ctx context.Context, m cache.Marshaler, im *inMemory, h cache.ExportHints) error {
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	if err := im.acquire(bounded); err != nil {
		return c.fail("save", err, "")
	}
	defer im.release()
	if im.foreign {
		return nil
	}
	ours, err := m.Marshal()
	if err != nil {
		return c.fail("save", hidden{"the program's in-memory cache could not be marshalled", err}, "")
	}
	im.hear(true, h.PartitionKey)
	if h.PartitionKey == "" && !im.public && im.baseKnown && len(signedOut(ours, im.base)) > 0 {
		im.public = true // a sign-in without a hint
	}
	if im.nameless && im.pending != nil {
		// What could not be stored of another one is not lost with this one.
		if both, _, err := merge.Bytes(merge.BytesInput{BaseUnknown: true, Ours: ours, Theirs: im.pending, Now: time.Now()}); err == nil {
			ours = both
		}
	}
	err = c.write(bounded, im, ours, h.PartitionKey)
	if err == nil {
		return nil
	}
	var target *formatError
	if errors.As(err, &target) {
		return err
	}
	im.pending = bytes.Clone(ours) // m may marshal into the same bytes again
	im.refused = im.goneFor(h.PartitionKey)
	signsOut := im.baseKnown && len(signedOut(im.base, ours)) > 0
	if c.strict || signsOut || errors.Is(ctx.Err(), context.Canceled) {
		c.report("export", "tokenkeep: cannot store the tokens", err)
		return err
	}
	c.report("export", "tokenkeep: cannot store the tokens; they stay in memory and the next save tries again", err)
	return nil
}

// write stores ours, which im holds, under the lock.
func (c *Cache) write(ctx context.Context, im *inMemory, ours []byte, hint string) error {
	return c.locked(ctx, func() error {
		return c.untilNoConflict(ctx, func() error { return c.writeOnce(ctx, im, ours, hint) })
	})
}

func (c *Cache) writeOnce(ctx context.Context, im *inMemory, ours []byte, hint string) error {
	gone := im.goneFor(hint)
	unmoved := im.held && len(gone) == 0
	if unmoved && c.lock != nil {
		// A look costs little under a lock, and spares a comparison in vain.
		// Without one there is a server, to which it is a round trip more.
		rev, err := c.store.Revision(ctx)
		if err != nil {
			return err
		}
		unmoved = rev == im.rev
	}
	if unmoved {
		if err := c.writeDirect(ctx, im, ours, hint); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	theirs, rev, err := c.load(ctx)
	if err != nil {
		return err
	}
	merged, changed, err := merge.Bytes(merge.BytesInput{Base: im.base, BaseUnknown: !im.baseKnown, Ours: ours, Theirs: theirs, Gone: gone, Now: time.Now()})
	switch {
	case errors.Is(err, merge.ErrBoth), errors.Is(err, merge.ErrOurs) && rev == "" && !startsObject(ours):
		c.report("format", "tokenkeep: the cache is not of the format that MSAL libraries share; the last writer wins", nil)
		merged, changed = ours, rev == "" || !bytes.Equal(ours, theirs)
	case err != nil:
		return c.unmergeable(err)
	}
	var spare []byte
	if changed {
		if _, err := c.store.SaveIf(ctx, merged, rev); err != nil {
			return err
		}
		spare = theirs
	}
	var out []tokencache.Account
	if im.baseKnown {
		out = signedOut(im.base, ours)
	}
	im.gave(ours, "", out, spare)
	im.settle(ours, hint, gone)
	return nil
}

// writeDirect stores ours if what is stored is what im was last given or gave,
// so that there is nothing to merge. Else it fails with ErrConflict.
func (c *Cache) writeDirect(ctx context.Context, im *inMemory, ours []byte, hint string) error {
	same, signedOut, err := compare(im.base, ours)
	switch {
	case same:
		im.pending = nil
		return nil
	case errors.Is(err, merge.ErrOurs) && (im.rev != "" || startsObject(ours)):
		return c.unmergeable(err)
	case err != nil:
		c.report("format", "tokenkeep: the cache is not of the format that MSAL libraries share; the last writer wins", nil)
	}
	rev, err := c.store.SaveIf(ctx, ours, im.rev)
	if err != nil {
		return err
	}
	im.gave(ours, rev, signedOut, im.base)
	im.settle(ours, hint, nil)
	return nil
}

// startsObject tells a damaged JSON object from data that was never meant to
// be JSON.
func startsObject(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	return len(data) > 0 && data[0] == '{'
}

// Load returns the stored cache, or ErrNotFound.
func (c *Cache) Load(ctx context.Context) ([]byte, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return c.store.Load(ctx)
}

// Update replaces the stored cache by what edit makes of it. No other writer
// comes in between. A nil current says that nothing is stored; a nil result
// says that nothing is to change. edit must not call this Cache's Update,
// Export or Delete, and may be called again if a writer that does not know the
// lock got in between. Update returns edit's error as it is. Storage errors
// are always returned.
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

// Delete removes the stored cache. In-memory caches notice at their next
// Replace.
func (c *Cache) Delete(ctx context.Context) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return c.locked(ctx, func() error { return c.store.Delete(ctx) })
}

// Exclusive runs fn while no other goroutine or process runs one under the same
// name on this cache. It waits no longer than ctx, or the timeout if ctx has no
// deadline; fn gets ctx itself. fn may use the Cache, but for Exclusive with a
// name that it is under.
//
// Put it around a silent sign-in, with the account's id as the name, where the
// provider rotates refresh tokens: two processes that spend one refresh token
// are taken for a thief and a victim, and both are signed out (RFC 9700,
// section 4.14). Each name leaves a small lock file, so names should be few.
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

// load is LoadRevision with "nothing stored" as no data and no revision.
func (c *Cache) load(ctx context.Context) ([]byte, string, error) {
	data, rev, err := c.store.LoadRevision(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil, "", nil
	}
	return data, rev, err
}

func (c *Cache) locked(ctx context.Context, fn func() error) error {
	if c.lock == nil {
		return fn()
	}
	unlock, err := c.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer c.unlock(unlock)
	return fn()
}

func (c *Cache) unlock(unlock func() error) {
	if err := unlock(); err != nil {
		c.report("unlock", "tokenkeep: cannot release a lock", err)
	}
}

// untilNoConflict repeats try, at growing intervals, until it meets no
// conflict or ctx ends.
func (c *Cache) untilNoConflict(ctx context.Context, try func() error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := try()
		if !errors.Is(err, ErrConflict) {
			return err
		}
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return c.fail("save", fmt.Errorf("%w: %w", ErrConflict, ctx.Err()), "Another writer keeps changing the cache; try again.")
		}
	}
}

func (c *Cache) fail(op string, err error, remedy string) error {
	d := c.Describe()
	return &Error{Op: op, Backend: d.Backend, Location: d.Location, Err: err, Remedy: remedy}
}

// unmergeable is the error for data that has no place in a merge. No retry
// mends it, so it is never held back.
func (c *Cache) unmergeable(err error) error {
	what := "the program's in-memory cache marshalled to what is not a token cache; nothing was written"
	remedy := "Sign in again; if it comes back, report it to the program's author."
	if errors.Is(err, merge.ErrTheirs) {
		what = "what is stored is not a token cache; nothing was written"
		remedy = "Move the stored data away and sign in again."
	}
	return c.fail("save", &formatError{hidden{what, err}}, remedy)
}

// unreadable is the error for stored data that the in-memory cache refused.
func (c *Cache) unreadable(data []byte, err error) error {
	if _, bad := tokencache.Parse(data); bad != nil {
		err = fmt.Errorf("%w: %w", ErrCorrupt, hidden{"it is not a token cache", err})
	} else {
		err = hidden{"the program's in-memory cache does not accept what is stored", err}
	}
	return c.fail("load", err, "Move the stored data away and sign in again.")
}

type formatError struct{ error }

func (e *formatError) Unwrap() error { return e.error }

// hidden keeps the text of an error that may quote a token out of sight.
type hidden struct {
	text string
	err  error
}

func (h hidden) Error() string { return h.text }
func (h hidden) Unwrap() error { return h.err }

// report logs what is not returned, once per kind.
func (c *Cache) report(what, msg string, err error) {
	kind := what
	for _, k := range []error{ErrNotFound, ErrUnavailable, ErrKeyringLocked, ErrCorrupt, ErrWrongKey, ErrKeyMissing,
		ErrUnsupportedVersion, ErrTooLarge, ErrConflict, ErrLockTimeout, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, k) {
			kind += ": " + k.Error()
			break
		}
	}
	if !c.logged.first(kind) {
		return
	}
	l := c.logger
	if l == nil {
		l = slog.Default()
	}
	d := c.Describe()
	attrs := []any{"backend", d.Backend, "location", d.Location}
	if err != nil {
		attrs = append(attrs, "error", err.Error())
	}
	l.Warn(msg, attrs...)
}

// kinds are the kinds of trouble that were logged already.
type kinds struct {
	mu   sync.Mutex
	seen map[string]bool
}

// first tells whether this is the first of that kind.
func (k *kinds) first(kind string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seen[kind] {
		return false
	}
	if k.seen == nil {
		k.seen = map[string]bool{}
	}
	k.seen[kind] = true
	return true
}
