package persistence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/transfer"
	"github.com/tokenkeep/tokenkeep/internal/within"
)

// Backend returns the backend that [New] was given. Saving through it overwrites
// what others have stored meanwhile: use it for [Move], and to ask what the
// backend is.
func (c *Cache) Backend() Persistence {
	own := c.store
	if f, ok := own.(interface{ ownBackend() Versioned }); ok {
		own = f.ownBackend()
	}
	if h, ok := own.(digestVersioned); ok {
		return h.Persistence
	}
	return own
}

// Move moves what from holds to to: it is saved there, read back, compared, and
// only then deleted from from. If to already holds a token cache, the two are
// merged: every account of either stays, and the newer of two tokens. Entries that
// MSAL cannot read are left out, with a warning to slog.Default() that names them.
// If from holds nothing, Move does nothing and returns nil.
//
// If Move fails or is killed, everything that was stored is in from, in to or in
// both, and another Move completes it. If an account is signed out of to before
// that, the other Move brings it back, because nothing says that it was there
// before. Reconfigure programs that use from before moving: what they save there
// afterwards stays there.
//
// Move holds the locks of both, if they are a [Locker]. Two backends may share
// one lock if it is a [FileLock]. Moves in opposite directions at the same time
// take turns. Between two backends without locks, only one process at a time
// should move anything. Every wait ends with ctx; a ctx without a deadline gets
// [DefaultTimeout].
//
// Move fails with an [*Error] of either backend. It fails with one of Op "move" if
// from and to are the same place, if what they hold cannot be merged, if what
// was saved does not read back the same, and, with [ErrConflict], if others keep
// changing either until ctx ends. Nothing is deleted then.
func Move(ctx context.Context, from, to Persistence) error {
	if isNil(from) || isNil(to) {
		return &Error{Op: "move", Err: errors.New("a Persistence is nil"), Remedy: "Pass Move two backends."}
	}
	m := mover{from: versioned(from), to: versioned(to)}
	if err := m.checkPlaces(); err != nil {
		return err
	}
	if reflect.ValueOf(from).Comparable() && reflect.ValueOf(to).Comparable() && from == to {
		return m.onePlace()
	}
	ctx, cancel := within.Deadline(ctx, DefaultTimeout)
	defer cancel()
	ctx = withLocks(ctx)
	unlock, err := lockBoth(ctx, from, to)
	if err != nil {
		return err
	}
	defer unlock()
	if Describe(from) == Describe(to) && locksOf(ctx).isShared() {
		return m.onePlace()
	}
	_, m.locked = to.(Locker)
	t := &transfer.Transfer{From: m.from, To: m.to, NotFound: ErrNotFound, Conflict: ErrConflict, Combine: m.combine,
		// One of the two may have chosen another place meanwhile.
		BeforeDelete: func(context.Context, string) error { return m.checkPlaces() }}
	err, ended := within.Retry(ctx, func(err error) bool { return errors.Is(err, ErrConflict) }, func() error { return m.move(ctx, t) })
	if ended {
		return m.fail(fmt.Errorf("%w: %w", ErrConflict, ctx.Err()), "Another writer keeps changing what is to be moved. Try again.")
	}
	if err == nil && len(m.refused) > 0 {
		d := Describe(to)
		slog.Default().Warn(leftOut+tokencache.Names(m.refused), "backend", d.Backend, "location", d.Location)
	}
	return err
}

func versioned(p Persistence) Versioned {
	if v, ok := p.(Versioned); ok {
		return v
	}
	return digestVersioned{p}
}

// lockBoth takes the locks of a and b, in an order that does not depend on which
// is which. Where their descriptions give none, it waits only a short while for
// the second, then releases the first and begins again.
func lockBoth(ctx context.Context, a, b Persistence) (unlock func(), err error) {
	x, y := Describe(a), Describe(b)
	order := cmp.Or(cmp.Compare(x.Location, y.Location), cmp.Compare(x.Backend, y.Backend))
	if order > 0 {
		a, b = b, a
	}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		unlockA, err := lockOf(ctx, a)
		if err != nil {
			return nil, err
		}
		second, cancel := ctx, context.CancelFunc(func() {})
		if order == 0 {
			second, cancel = context.WithTimeout(ctx, wait/2+rand.N(wait)) // random, so that two Moves do not repeat at the same moments
		}
		unlockB, err := lockOf(second, b)
		again := second.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil {
			return func() { unlockB(); unlockA() }, nil
		}
		unlockA()
		if !again || !within.Sleep(ctx, wait/2) {
			return nil, err
		}
	}
}

func lockOf(ctx context.Context, p Persistence) (unlock func(), err error) {
	l, ok := p.(Locker)
	if !ok {
		return func() {}, nil
	}
	u, err := l.Lock(ctx)
	if err != nil {
		return nil, err
	}
	return func() { _ = u() }, nil // a lock that cannot be released is released with the process
}

// mover is a Move under way.
type mover struct {
	from, to Versioned
	locked   bool                 // to is
	refused  []tokencache.Refused // left out of what was moved last
}

// combine merges what both hold.
func (m *mover) combine(h transfer.Held) (transfer.Next, error) {
	if h.To == nil {
		data, refused := tokencache.Sound(h.From)
		m.refused = refused
		return transfer.Next{Data: data, Changed: true}, nil
	}
	merged, changed, refused, err := transfer.Merge(h.Copied, h.From, h.To)
	if err != nil {
		return transfer.Next{}, m.fail(redactedError{"what the two hold cannot be merged, because it is not a token cache", err}, "Delete what is not needed of the two, and move again.")
	}
	m.refused = refused
	return transfer.Next{Data: merged, Changed: changed}, nil
}

// move is one try.
func (m *mover) move(ctx context.Context, t *transfer.Transfer) error {
	done, err := t.Try(ctx)
	var source *transfer.SourceError
	var readBack *transfer.ReadBackError
	switch {
	case errors.As(err, &source):
		return source.Err
	case errors.As(err, &readBack):
		readBack.Err = Cause(readBack.Err)
		return m.fail(err, "Check the place that it was moved to, and move again.")
	case err != nil, done.FromRev == "":
		return err
	case m.locked && done.FromRev != done.ToRev:
		return nil
	}
	// Without a lock another process may have moved it back. Or both are one
	// place, by two names: then their revisions were the same.
	if now, err := m.to.Revision(ctx); err != nil || now != "" {
		return err
	}
	if _, err := m.to.SaveIf(ctx, done.Data, ""); err != nil {
		return err
	}
	return m.fail(errors.New("what was moved disappeared at once, and was put back"), "Move to another place, and let only one program move it.")
}

// checkPlaces finds two backends of one file.
func (m *mover) checkPlaces() error {
	if place := Describe(m.from).Location; filepath.IsAbs(place) && place == Describe(m.to).Location {
		return m.onePlace()
	}
	return nil
}

func (m *mover) onePlace() error {
	return m.fail(errors.New("both backends are at the same place"), "Move to another place.")
}

func (m *mover) fail(err error, remedy string) error {
	d := Describe(m.to)
	return &Error{Op: "move", Backend: d.Backend, Location: d.Location, Err: err, Remedy: remedy}
}
