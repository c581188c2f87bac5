package firstlevel

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// outage is a store that fails with err while that is not nil.
type outage struct {
	persistence.Versioned
	err   error
	after map[string]error // what err becomes after an operation
}

func newOutage() *outage {
	o := &outage{}
	o.Versioned = persistencetest.Intercept(persistence.NewMemory(), func(_ context.Context, op string, call func() error) error {
		if o.err != nil {
			return o.err
		}
		defer func() {
			if err := o.after[op]; err != nil {
				o.err = err
			}
		}()
		return call()
	}).(persistence.Versioned)
	return o
}

func TestStale(t *testing.T) {
	ctx := t.Context()
	now := time.Now()
	server := func(store persistence.Versioned, stale time.Duration) persistence.Versioned {
		m := New(&Options{MaxStale: stale})
		m.now = func() time.Time { return now }
		return m.Account("a", store)
	}
	store := newOutage()
	other := server(store, time.Minute)
	strict, a := server(store, 0), server(store, time.Minute)
	require.NoError(t, other.Save(ctx, []byte("one")))
	for _, s := range []persistence.Versioned{strict, a} {
		_, err := s.Load(ctx)
		require.NoError(t, err)
	}

	for _, err := range []error{persistence.ErrUnavailable, context.DeadlineExceeded} {
		store.err = fmt.Errorf("the store: %w", err)
		data, rev, err := a.LoadRevision(ctx)
		require.NoError(t, err)
		require.Equal(t, "one", string(data))
		again, err := a.Revision(ctx)
		require.NoError(t, err)
		require.Equal(t, rev, again)
		_, err = strict.Load(ctx)
		require.ErrorIs(t, err, store.err, "it is off by default")
		_, err = a.SaveIf(ctx, []byte("two"), rev)
		require.ErrorIs(t, err, store.err)
		data, err = a.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, "one", string(data), "what was not saved is not believed")
	}
	for _, err := range []error{persistence.ErrCorrupt, context.Canceled, errors.New("a reason of its own")} {
		store.err = err
		_, err := a.Load(ctx)
		require.ErrorIs(t, err, store.err)
	}

	// The time counts from when the store last confirmed what is in memory.
	store.err = nil
	now = now.Add(50 * time.Second)
	_, err := a.Load(ctx)
	require.NoError(t, err)
	store.err = persistence.ErrUnavailable
	now = now.Add(time.Minute)
	_, err = a.Load(ctx)
	require.NoError(t, err)
	now = now.Add(time.Second)
	_, err = a.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	_, err = a.Revision(ctx)
	require.ErrorIs(t, err, persistence.ErrUnavailable)

	// What the store has said is current no more is not answered, though the load
	// that was to follow has failed; and one that it has confirmed is for longer.
	store.err = nil
	_, err = a.Load(ctx)
	require.NoError(t, err)
	now = now.Add(50 * time.Second)
	_, err = a.Revision(ctx)
	require.NoError(t, err)
	store.err = persistence.ErrUnavailable
	now = now.Add(50 * time.Second)
	_, err = a.Load(ctx)
	require.NoError(t, err)
	for name, look := range map[string]func() error{
		"Load":     func() error { _, err := a.Load(ctx); return err },
		"Revision": func() error { _, err := a.Revision(ctx); return err },
	} {
		store.err = nil
		_, err = a.Load(ctx)
		require.NoError(t, err)
		require.NoError(t, other.Save(ctx, []byte("of "+name)))
		store.after = map[string]error{"Revision": persistence.ErrUnavailable}
		require.Equal(t, name == "Load", errors.Is(look(), persistence.ErrUnavailable))
		_, err = a.Load(ctx)
		require.ErrorIs(t, err, persistence.ErrUnavailable, name)
		store.after = nil
	}

	// A sign-out at another server is seen when the store answers again.
	store.err = nil
	_, err = a.Load(ctx)
	require.NoError(t, err)
	require.NoError(t, other.Delete(ctx))
	store.err = persistence.ErrUnavailable
	_, err = a.Load(ctx)
	require.NoError(t, err)
	store.err = nil
	_, err = a.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
	store.err = persistence.ErrUnavailable
	_, err = a.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrUnavailable, "and is not forgotten in the next outage")
}

// A user who signs out here is signed out here, also where the store cannot be
// told, and where a load was under way.
func TestStaleAfterASignOut(t *testing.T) {
	ctx := t.Context()
	for _, told := range []bool{true, false} {
		store := newOutage()
		m := New(&Options{MaxStale: time.Hour})
		a := m.Account("a", store)
		require.NoError(t, a.Save(ctx, []byte("one")))
		_, err := a.Load(ctx)
		require.NoError(t, err)
		if !told {
			store.err = persistence.ErrUnavailable
		}
		require.ErrorIs(t, a.Delete(ctx), store.err)
		store.err = persistence.ErrUnavailable
		_, err = a.Load(ctx)
		require.ErrorIs(t, err, persistence.ErrUnavailable)
	}

	for name, deleted := range map[string]bool{"a load during a sign-out": true, "the control": false} {
		t.Run(name, func(t *testing.T) {
			store := newOutage()
			m := New(&Options{MaxStale: time.Hour})
			require.NoError(t, store.Save(ctx, []byte("one")))
			slow := persistencetest.Intercept(store, func(_ context.Context, op string, call func() error) error {
				err := call()
				if op == "LoadRevision" && deleted {
					require.NoError(t, m.Account("a", store).Delete(ctx))
				}
				return err
			}).(persistence.Versioned)
			data, err := m.Account("a", slow).Load(ctx)
			require.NoError(t, err)
			require.Equal(t, "one", string(data))
			store.err = persistence.ErrUnavailable
			_, err = m.Account("a", store).Load(ctx)
			if deleted {
				require.ErrorIs(t, err, persistence.ErrUnavailable)
			} else {
				require.NoError(t, err)
			}
		})
	}
}
