package persistence

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/replica"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/within"
)

// engine moves data between one stored cache and the in-memory caches that hold
// it. A Cache has one, a Partitioned one for each account.
type engine struct {
	settings
	store Versioned
	lock  Locker // nil: SaveIf alone decides between writers
}

// newEngine returns the engine of the cache that p keeps.
func newEngine(s settings, p Persistence) (engine, error) {
	e := engine{settings: s}
	if l, ok := p.(Locker); ok {
		e.lock = l
	} else if s.lockFile != nil {
		e.lock = s.lockFile
	}
	v, ok := p.(Versioned)
	switch {
	case ok:
		e.store = v
	case e.lock == nil:
		d := Describe(p)
		return engine{}, &Error{Op: "open", Backend: d.Backend, Location: d.Location,
			Err:    errors.New("the Persistence is neither a Versioned nor a Locker, so writers would overwrite each other's tokens"),
			Remedy: "Give New the option WithLockFile."}
	default:
		e.store = digestVersioned{p}
	}
	if len(s.follow) > 0 {
		e.store = s.followOn(e.store)
	}
	return e, nil
}

// resident is what an engine needs to know of an in-memory cache. Its caller
// has locked it.
type resident struct {
	*replica.Replica

	empty bool // it was just emptied, or is new
	again bool // this is a second look within one Replace

	others
}

// others is what the rest of this process does with what an in-memory cache stores.
type others interface {
	// removed returns what was removed from the store, in other ways than by this
	// in-memory cache, since something of it could not be stored. It is asked under the
	// lock, and returns each removal once.
	removed() replica.Removed
	// signedOut returns the sign-outs among them.
	signedOut() replica.Removed
	// signedOutNow returns the accounts that this process has signed out since the last
	// call of signedOutNow, if the store may not show it. created says that the save found
	// nothing stored. It is called after a save of what was pending: a sign-out just before
	// may have found nothing to remove, so the save met no conflict. Then what was saved is
	// taken back, and planned again without what was pending. A sign-in that was not
	// pending is under way, and stands.
	signedOutNow(created bool) replica.Removed

	// alone waits until no other in-memory cache of this process stores what this one
	// could not store before.
	alone(ctx context.Context) (end func(), err error)
	// stored is told that a plan was carried out, before end is called.
	stored()
}

// errTakenBack says that what was saved was taken back.
var errTakenBack = errors.New("signed out meanwhile")

// settle takes into account what was removed in the meantime, and reports whether
// that was anything.
func (r resident) settle() bool {
	if r.Pending() == nil {
		return false
	}
	x := r.removed()
	if x.Any() {
		r.Removed(x)
	}
	return x.Any()
}

// replace brings u up to date.
func (e *engine) replace(ctx context.Context, u cache.Unmarshaler, r resident, h cache.ReplaceHints) error {
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return e.fail("load", err, "")
	}
	bounded, cancel := e.bounded(ctx)
	defer cancel()
	if !r.again {
		r.Read(replica.CallOf(ctx), h.PartitionKey)
	}
	err := e.refresh(bounded, u, r)
	if err == nil {
		e.worked("replace")
		return nil
	}
	if !r.GivenData() && !e.strict && !errors.Is(ctx.Err(), context.Canceled) && isSigningIn(ctx) && mayPass(err) {
		e.report("replace", "tokenkeep: cannot read the stored tokens; those of a sign-in are kept until they can be stored", err)
		if err := e.give(u, r.Blank(), r.empty); err != nil {
			r.Failed()
			return e.fail("load", redactedError{"the program's in-memory cache does not accept what it held before", err}, "")
		}
		return nil
	}
	what := "replace"
	var refused *refusedError
	if errors.As(err, &refused) {
		what = "refused" // a kind of its own: no other trouble hides it
	}
	if !r.GivenData() || e.strict || errors.Is(ctx.Err(), context.Canceled) {
		r.Failed()
		e.report(what, "tokenkeep: cannot read the stored tokens", err)
		return err
	}
	e.report(what, "tokenkeep: cannot read the stored tokens; going on with those in memory", err)
	if give, again := r.Unread(e.now()); again {
		if err := u.Unmarshal(bytes.Clone(give)); err != nil {
			r.Failed()
			return e.fail("load", redactedError{"the program's in-memory cache does not accept what it held before", err}, "")
		}
	}
	return nil
}

// refresh gives u what is stored, unless u holds it already.
func (e *engine) refresh(ctx context.Context, u cache.Unmarshaler, r resident) error {
	r.settle()
	if held, ok := r.AtRevision(); ok {
		rev, err := e.store.Revision(ctx)
		if err != nil {
			return err
		}
		if rev == held {
			r.Unchanged()
			return nil
		}
	}
	for {
		data, rev, err := e.loadCache(ctx)
		if err != nil {
			return err
		}
		if err = e.hand(data, rev, u, r); err == nil || !e.setAside(ctx, data, rev, err) {
			return err
		}
		r.empty = false // u may have taken a part of it
	}
}

// hand gives u what is stored.
func (e *engine) hand(data []byte, rev string, u cache.Unmarshaler, r resident) error {
	now := e.now()
	for {
		usable, refused := r.Usable(data)
		give, err := r.Give(usable, now)
		if err != nil {
			return e.unmergeable(err)
		}
		if err := e.give(u, give, r.empty); err != nil {
			if r.Distrust() {
				continue
			}
			r.Refused()
			return e.unreadable(data, err)
		}
		if len(refused) > 0 {
			e.report("left out", leftOut+tokencache.Names(refused), nil)
		}
		r.Loaded(usable, rev, give, now)
		return nil
	}
}

// leftOut begins the warning that names what MSAL cannot take.
const leftOut = "tokenkeep: stored entries that MSAL cannot read were left out: "

// give makes u hold data; empty says that it holds nothing.
func (e *engine) give(u cache.Unmarshaler, data []byte, empty bool) error {
	switch {
	case len(data) > 0:
		return u.Unmarshal(bytes.Clone(data)) // a clone: u may keep the slice
	case !empty:
		return u.Unmarshal([]byte("{}"))
	}
	return nil
}

// export stores what m holds.
func (e *engine) export(ctx context.Context, m cache.Marshaler, r resident, h cache.ExportHints) error {
	bounded, cancel := e.bounded(ctx)
	defer cancel()
	ours, err := m.Marshal()
	if err != nil {
		return e.fail("save", redactedError{"the program's in-memory cache could not be marshalled", err}, "")
	}
	plan := r.Export(replica.CallOf(ctx), h.PartitionKey, ours, e.now())
	if plan.Foreign > 0 {
		e.report("other account", fmt.Sprintf("tokenkeep: %d entries of another account were not stored in this one's cache; use an MSAL client for each request", plan.Foreign), nil)
	}
	if err = e.write(bounded, r, plan); err == nil {
		e.worked("export")
		return nil
	}
	var format *formatError
	if errors.As(err, &format) {
		if errors.Is(err, merge.ErrOurs) {
			r.Distrust() // MSAL may have been given what it cannot serialize
		}
		return err
	}
	r.Unsaved(plan)
	if x := r.signedOut(); x.Any() {
		r.Removed(x) // while the save was under way
	}
	if e.strict || plan.SignsOut || errors.Is(ctx.Err(), context.Canceled) {
		e.report("export", "tokenkeep: cannot store the tokens", err)
		return err
	}
	e.report("export", "tokenkeep: cannot store the tokens; they stay in memory and the next save tries again", err)
	return nil
}

// write carries the plan out, under the lock. If the lock fails, as on a
// read-only disk, a plan that changes nothing succeeds all the same.
//
// Somebody else who knows what could not be stored waits until it is known whether it
// has been stored now. Between a save and its answer, they would store it again, also
// after a sign-out elsewhere.
func (e *engine) write(ctx context.Context, r resident, plan *replica.Plan) error {
	end, err := r.alone(ctx)
	if err != nil {
		return e.fail("save", fmt.Errorf("%w: %w", ErrLockTimeout, err), "Another call of this program is storing these tokens; try again.")
	}
	defer end()
	locked := false
	err = e.locked(ctx, func() error {
		locked = true
		err := e.untilNoConflict(ctx, func() error { return e.writeOnce(ctx, r, plan) })
		if err == nil {
			r.stored()
		}
		return err
	})
	if err != nil && !locked && e.changesNothing(ctx, r, plan) {
		r.Nothing(plan)
		return nil
	}
	return err
}

// changesNothing reports whether all that the plan says is stored already.
func (e *engine) changesNothing(ctx context.Context, r resident, plan *replica.Plan) bool {
	rev, unmoved := r.AtRevision()
	if !unmoved || rev == "" || r.Pending() != nil {
		return false
	}
	same, err := plan.Same()
	if err != nil || !same {
		return false
	}
	now, err := e.store.Revision(ctx)
	return err == nil && now == rev
}

func (e *engine) writeOnce(ctx context.Context, r resident, plan *replica.Plan) error {
	r.signedOutNow(true) // what was signed out before is settled now
	if r.settle() {
		r.Rebase(plan)
	}
	rev, unmoved := r.AtRevision()
	if unmoved && e.lock != nil {
		// To ask costs little under a lock, and saves a comparison for nothing.
		// Without a lock the store is a server, where it costs a round trip.
		now, err := e.store.Revision(ctx)
		if err != nil {
			return err
		}
		unmoved = now == rev
	}
	if unmoved {
		if err := e.writeOver(ctx, r, plan, rev); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	theirs, rev, err := e.loadCache(ctx)
	if err != nil {
		return err
	}
	m, err := plan.Merge(theirs)
	switch {
	case errors.Is(err, merge.ErrBoth), errors.Is(err, merge.ErrOurs) && rev == "" && !startsObject(plan.Data()):
		e.report("format", "tokenkeep: the cache is not of the format that MSAL libraries share; the last writer wins", nil)
		m.Merged, m.Changed = plan.Data(), rev == "" || !bytes.Equal(plan.Data(), theirs)
	case err != nil:
		return e.unmergeable(err)
	}
	if rev == "" && plan.Bare() {
		m.Changed = false
	}
	var spare []byte
	if m.Changed {
		if _, err := e.save(ctx, r, m.Merged, rev); err != nil {
			return err
		}
		spare = theirs
	}
	r.Stored(plan, "", spare)
	return nil
}

// writeOver stores the plan over its base, which is stored at rev: there is
// nothing to merge. It fails with ErrConflict if something else is stored.
func (e *engine) writeOver(ctx context.Context, r resident, plan *replica.Plan, rev string) error {
	same, err := plan.Same()
	switch {
	case same, rev == "" && plan.Bare():
		r.Nothing(plan)
		return nil
	case errors.Is(err, merge.ErrOurs) && (rev != "" || startsObject(plan.Data())):
		return e.unmergeable(err)
	case err != nil:
		e.report("format", "tokenkeep: the cache is not of the format that MSAL libraries share; the last writer wins", nil)
	}
	now, err := e.save(ctx, r, plan.Data(), rev)
	if err != nil {
		return err
	}
	r.Stored(plan, now, plan.Spare())
	return nil
}

// setAside moves data out of the way that u has refused and that is not a token cache, if
// the store can do that, and reports whether to load again. So nobody has to do it by
// hand.
func (e *engine) setAside(ctx context.Context, data []byte, rev string, why error) bool {
	s, ok := e.store.(SetAsider)
	if _, bad := tokencache.Parse(data); !ok || bad == nil {
		return false
	}
	to, err := s.SetAside(ctx, rev)
	if err == nil && to != "" {
		e.report("set aside", "tokenkeep: what was stored is not a token cache, and was renamed to "+to, why)
	}
	return err == nil || errors.Is(err, ErrConflict)
}

// save is SaveIf for an in-memory cache. If this process has signed an account out
// meanwhile, save takes back what was pending of it.
func (e *engine) save(ctx context.Context, r resident, data []byte, rev string) (string, error) {
	now, err := e.store.SaveIf(ctx, data, rev)
	if err != nil || r.Pending() == nil {
		return now, err
	}
	out := r.signedOutNow(rev == "")
	switch {
	case !out.Any():
		return now, nil
	case rev == "":
		err = e.store.DeleteIf(ctx, now)
	default:
		d, parseErr := tokencache.Parse(data)
		if parseErr != nil {
			return now, nil // it names no accounts
		}
		rest, removed := d.Filter(func(_ string, entry *tokencache.Entry) bool { return !out.Has(entry.Account()) })
		if removed == 0 {
			return now, nil
		}
		_, err = e.store.SaveIf(ctx, rest, now)
	}
	if err != nil && !errors.Is(err, ErrConflict) {
		return now, err
	}
	return now, errTakenBack
}

// startsObject tells a damaged JSON object from data that was never meant to
// be JSON.
func startsObject(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	return len(data) > 0 && data[0] == '{'
}

// loadCache is load, but returns data that holds nothing as no data.
func (e *engine) loadCache(ctx context.Context) ([]byte, string, error) {
	data, rev, err := e.load(ctx)
	return tokencache.Trim(data), rev, err
}

// load is LoadRevision with "nothing stored" as no data and no revision.
func (e *engine) load(ctx context.Context) ([]byte, string, error) {
	data, rev, err := e.store.LoadRevision(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil, "", nil
	}
	return data, rev, err
}

// delete removes what is stored.
func (e *engine) delete(ctx context.Context) error {
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	return e.locked(ctx, func() error { return e.store.Delete(ctx) })
}

func (e *engine) locked(ctx context.Context, fn func() error) error {
	if e.lock == nil {
		return fn()
	}
	unlock, err := e.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer e.unlock(unlock)
	return fn()
}

func (e *engine) unlock(unlock func() error) {
	if err := unlock(); err != nil {
		e.report("unlock", "tokenkeep: cannot release a lock", err)
	}
}

// untilNoConflict repeats try until it meets no conflict or ctx ends.
func (e *engine) untilNoConflict(ctx context.Context, try func() error) error {
	err, ended := within.Retry(ctx, func(err error) bool { return errors.Is(err, ErrConflict) || err == errTakenBack }, try)
	if ended {
		return e.fail("save", fmt.Errorf("%w: %w", ErrConflict, ctx.Err()), "Another writer keeps changing the cache; try again.")
	}
	return err
}

// bounded returns ctx, with a deadline if it has none, and a function that releases it.
func (s *settings) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return within.Deadline(ctx, s.timeout)
}

func (e *engine) fail(op string, err error, remedy string) error {
	return failure(Describe(e.store), op, err, remedy)
}

func failure(d Description, op string, err error, remedy string) error {
	return &Error{Op: op, Backend: d.Backend, Location: d.Location, Err: err, Remedy: remedy}
}

// unmergeable is the error for data that cannot be merged. No retry helps, so it is
// always returned.
func (e *engine) unmergeable(err error) error {
	what := "the program's in-memory cache marshalled to what is not a token cache; nothing was written"
	remedy := "Sign in again; if it comes back, report it to the program's author."
	if errors.Is(err, merge.ErrTheirs) {
		what = "what is stored is not a token cache; nothing was written"
		remedy = "Move the stored data away and sign in again."
	}
	return e.fail("save", &formatError{redactedError{what, err}}, remedy)
}

// unreadable is the error for stored data that the in-memory cache refused.
func (e *engine) unreadable(data []byte, err error) error {
	if _, bad := tokencache.Parse(data); bad != nil {
		err = fmt.Errorf("%w: %w", ErrCorrupt, redactedError{"it is not a token cache", err})
	} else {
		err = &refusedError{redactedError{"the program's in-memory cache does not accept what is stored", err}}
	}
	return e.fail("load", err, "Move the stored data away and sign in again.")
}

// refusedError says that an in-memory cache refused a token cache.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

type formatError struct{ error }

func (e *formatError) Unwrap() error { return e.error }

// redactedError keeps the text of an error that may quote a token out of sight.
type redactedError struct {
	text string
	err  error
}

func (r redactedError) Error() string { return r.text }
func (r redactedError) Unwrap() error { return r.err }

// report logs what is not returned.
func (e *engine) report(what, msg string, err error) {
	e.settings.report(Describe(e.store), what, msg, err)
}

// emptied gives a memory an empty cache. It reports false if the memory does not
// take it: then it is not of the format that the MSAL libraries share.
func emptied(u cache.Unmarshaler) bool { return u.Unmarshal([]byte("{}")) == nil }
