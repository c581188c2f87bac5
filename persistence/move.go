package persistence

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/merge"
)

// Persistence returns the backend that [New] was given: for [Move], or to ask
// what it is. Who saves with it directly overwrites what others stored.
func (c *Cache) Persistence() Persistence {
	if h, ok := c.store.(digestVersioned); ok {
		return h.Persistence
	}
	return c.store
}

// Move moves what from holds into to: it is saved there, read back, compared,
// and only then deleted from from. Where to holds a token cache already, the two
// are merged: every account of either stays, and the newer of two tokens.
// Where from holds nothing there is nothing to do, and Move returns nil.
//
// If it fails, or is killed at any point, all that was stored is in from, in to
// or in both, and a further Move completes it. (Should an account be signed out
// of to before that, the further Move brings it back: nothing tells then that
// it was there before.) Programs that use from had better be told first: what
// they save there later stays there.
//
// The locks of both are held meanwhile, of those that are a [Locker]. They may
// share one, if it is a [FileLock]. Moves in opposite directions at once take
// turns. Of two backends without locks, at most one process should move anything
// at a time. Every wait ends with ctx; one without a deadline gets [DefaultTimeout].
//
// Move fails with an [*Error] of either backend; with one of Op "move" where from
// and to are the same place, where what they hold cannot be merged, and where
// what was saved does not read back the same. Then nothing is deleted.
func Move(ctx context.Context, from, to Persistence) error {
	if isNil(from) || isNil(to) {
		return &Error{Op: "move", Err: errors.New("a Persistence is nil"), Remedy: "Pass Move two backends."}
	}
	m := mover{from: versioned(from), to: versioned(to)}
	if err := m.checkPlaces(); err != nil {
		return err
	}
	if reflect.TypeOf(from).Comparable() && from == to {
		return m.onePlace()
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
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
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if err := m.move(ctx); !errors.Is(err, ErrConflict) {
			return err
		}
		if !sleep(ctx, wait/2+rand.N(wait)) {
			return m.fail(fmt.Errorf("%w: %w", ErrConflict, ctx.Err()), "Another writer keeps changing what is to be moved; try again.")
		}
	}
}

func versioned(p Persistence) Versioned {
	if v, ok := p.(Versioned); ok {
		return v
	}
	return digestVersioned{p}
}

// sleep says whether d went by before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lockBoth takes the locks of a and b, in an order that does not depend on which
// is which. Where their descriptions give none, it waits only a short while for
// the second, lets go of the first and begins again.
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
			second, cancel = context.WithTimeout(ctx, wait/2+rand.N(wait))
		}
		unlockB, err := lockOf(second, b)
		again := second.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil {
			return func() { unlockB(); unlockA() }, nil
		}
		unlockA()
		if !again || !sleep(ctx, rand.N(wait)) {
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
	locked   bool   // to is
	copied   []byte // of from, what to was given or had; nil for nothing yet
}

// move is one try. After a conflict, what was copied before is the base of the
// merge, so that what was signed out of from since is not left in to.
func (m *mover) move(ctx context.Context) error {
	data, rev, err := m.from.LoadRevision(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	kept, there, err := m.to.LoadRevision(ctx)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	next, changed := data, true
	if err == nil {
		next, changed, err = merge.Merge(merge.Input{Base: m.copied, BaseUnknown: m.copied == nil, Ours: data, Theirs: kept, Now: time.Now()})
		if err != nil {
			return m.fail(redactedError{"what the two hold cannot be merged, as it is not a token cache", err}, "Delete what is not needed of the two, and move again.")
		}
	} else {
		there = ""
	}
	if changed {
		if there, err = m.save(ctx, next, there); err != nil {
			return err
		}
	}
	m.copied = data
	if err := m.checkPlaces(); err != nil { // one of them may have made another choice meanwhile
		return err
	}
	if err := m.from.DeleteIf(ctx, rev); err != nil || m.locked && rev != there {
		return err
	}
	// Without a lock another process may have moved it back. Or both are one
	// place, by two names: then their revisions were the same.
	if now, err := m.to.Revision(ctx); err != nil || now != "" {
		return err
	}
	if _, err := m.to.SaveIf(ctx, next, ""); err != nil {
		return err
	}
	return m.fail(errors.New("what was moved disappeared at once, and was put back"), "Move to another place, and let one program do it.")
}

// save saves data in to and reads it back.
func (m *mover) save(ctx context.Context, data []byte, there string) (rev string, err error) {
	if rev, err = m.to.SaveIf(ctx, data, there); err != nil {
		return "", err
	}
	back, now, err := m.to.LoadRevision(ctx)
	switch {
	case err == nil && now != rev:
		return "", m.fail(ErrConflict, "") // changed meanwhile: begin again
	case err == nil && !bytes.Equal(back, data):
		err = errors.New("other bytes came back")
	case err == nil:
		return rev, nil
	}
	return "", m.fail(fmt.Errorf("what was saved does not read back the same, and nothing was deleted: %w", err),
		"See whether the place that it was moved to works, and move again.")
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
