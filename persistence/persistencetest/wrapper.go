package persistencetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// RunWrapper checks a function that puts something in front of a backend: encryption,
// a metric, a memory. Programs ask a backend with type assertions for what it can do, so
// a wrapper that hides an ability takes its lock, its leases or its revisions away, and
// nothing fails until tokens are lost.
//
// What wrap returns must be a Versioned, a Locker, a NamedLocker, a Leaser and a
// SetAsider exactly if what it is given is, and must describe itself. RunWrapper gives
// it a backend in memory with each combination of these abilities that is a P, and
// checks that the calls reach that backend. P is [persistence.Versioned] for a wrapper
// that only takes backends with revisions, else [persistence.Persistence].
//
//	func TestMeasured(t *testing.T) {
//		persistencetest.RunWrapper(t, func(p persistence.Persistence) persistence.Persistence {
//			return Measured(p)
//		})
//	}
//
// It does not check the wrapper as a backend: that is [Run]'s.
func RunWrapper[P persistence.Persistence](t *testing.T, wrap func(P) persistence.Persistence) {
	t.Helper()
	checkWrapper(t, wrap)
}

func checkWrapper[P persistence.Persistence](t testing.TB, wrap func(P) persistence.Persistence) {
	t.Helper()
	given := 0
	for has := range describer | versioned | locker | namedLocker | leaser | setAsider + 1 {
		if has&describer == 0 || has&namedLocker != 0 && has&locker == 0 || has&setAsider != 0 && has&versioned == 0 {
			continue // no backend is that
		}
		var calls []string
		var inner persistence.Persistence = intercepted{complete{persistence.NewMemory()}, func(_ context.Context, op string, call func() error) error {
			calls = append(calls, op)
			return call()
		}}.with(has)
		if got := abilitiesOf(inner); got != has {
			t.Fatalf("persistencetest: the backend is %v, and was to be %v", got, has)
		}
		p, ok := inner.(P)
		if !ok {
			continue
		}
		given++
		outer := wrap(p)
		if got := abilitiesOf(outer); got != has {
			t.Errorf("what wraps %v is %v", has, got)
			continue
		}
		if persistence.Describe(outer) == (persistence.Description{}) {
			t.Errorf("what wraps %v does not describe itself", has)
		}
		for _, use := range uses {
			if use.needs&^has != 0 {
				continue
			}
			calls = nil
			if err := use.do(t.Context(), outer); err != nil {
				t.Errorf("what wraps %v: %v", has, err)
			}
			for _, op := range use.calls {
				if !slices.Contains(calls, op) {
					t.Errorf("what wraps %v does not pass on %s", has, op)
				}
			}
		}
	}
	if given == 0 {
		t.Fatalf("the wrapper takes none of the backends")
	}
}

// complete is a backend in memory with all abilities.
type complete struct{ *persistence.Memory }

func (c complete) SetAside(ctx context.Context, rev string) (string, error) {
	return "elsewhere", c.DeleteIf(ctx, rev)
}

// uses are how a wrapper is used, in this order, and the calls that must reach what
// it wraps.
var uses = []struct {
	needs ability
	calls []string
	do    func(ctx context.Context, p persistence.Persistence) error
}{
	{0, []string{"Save"}, func(ctx context.Context, p persistence.Persistence) error {
		return p.Save(ctx, []byte("data"))
	}},
	{0, nil, func(ctx context.Context, p persistence.Persistence) error { // a wrapper may remember what it saved
		data, err := p.Load(ctx)
		if err == nil && string(data) != "data" {
			err = fmt.Errorf("what was saved is loaded as %q", data)
		}
		return err
	}},
	{versioned, []string{"Revision", "SaveIf"}, func(ctx context.Context, p persistence.Persistence) error {
		v := p.(persistence.Versioned)
		rev, err := v.Revision(ctx)
		if err != nil {
			return err
		}
		_, err = v.SaveIf(ctx, []byte("data"), rev)
		return err
	}},
	{locker, []string{"Lock", "Unlock"}, func(ctx context.Context, p persistence.Persistence) error {
		return release(p.(persistence.Locker).Lock(ctx))
	}},
	{namedLocker, []string{"LockName", "Unlock"}, func(ctx context.Context, p persistence.Persistence) error {
		return release(p.(persistence.NamedLocker).LockName(ctx, "name"))
	}},
	{leaser, []string{"Lease", "Release"}, func(ctx context.Context, p persistence.Persistence) error {
		l := p.(persistence.Leaser)
		if got, err := l.Lease(ctx, "owner", time.Minute); err != nil || !got {
			return fmt.Errorf("Lease: %v, %w", got, err)
		}
		return l.Release(ctx, "owner")
	}},
	{setAsider, []string{"SetAside"}, func(ctx context.Context, p persistence.Persistence) error {
		rev, err := p.(persistence.Versioned).Revision(ctx)
		if err != nil {
			return err
		}
		place, err := p.(persistence.SetAsider).SetAside(ctx, rev)
		if err == nil && place != "elsewhere" {
			err = fmt.Errorf("SetAside names the place %q", place)
		}
		return err
	}},
	{0, []string{"Delete"}, func(ctx context.Context, p persistence.Persistence) error { return p.Delete(ctx) }},
}

func release(unlock func() error, err error) error {
	switch {
	case err != nil:
		return err
	case unlock == nil:
		return errors.New("there is a lock without an unlock")
	}
	return unlock()
}
