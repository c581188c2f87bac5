package keyringtest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestKeyring(t *testing.T) {
	for name, newKeyring := range map[string]func(t *testing.T) *keyringtest.Keyring{
		"memory": func(*testing.T) *keyringtest.Keyring { return keyringtest.New() },
		"folder": func(t *testing.T) *keyringtest.Keyring { return keyringtest.NewDir(t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			k := newKeyring(t)
			_, err := k.Get(ctx, "s", "u")
			require.ErrorIs(t, err, persistence.ErrNotFound)
			require.ErrorIs(t, k.Delete(ctx, "s", "u"), persistence.ErrNotFound)
			for _, secret := range []string{"one", "", "\x00\xff not UTF-8"} {
				require.NoError(t, k.Set(ctx, "s", "u", secret))
				got, err := k.Reopen().Get(ctx, "s", "u")
				require.NoError(t, err)
				require.Equal(t, secret, got)
			}
			require.NoError(t, k.Set(ctx, "s", "v", "other"))
			require.NoError(t, k.Delete(ctx, "s", "u"))
			require.Equal(t, map[keyringtest.Item]string{{Service: "s", User: "v"}: "other"}, k.Items())

			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					user := fmt.Sprint(i)
					for range 20 {
						k.Set(ctx, "s", user, user)
						if got, err := k.Get(ctx, "s", user); err != nil || got != user {
							t.Errorf("got %q, %v", got, err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestFaults(t *testing.T) {
	ctx := t.Context()
	const secret = "planted-secret"
	all := func(k *keyringtest.Keyring) []error {
		_, get := k.Get(ctx, "s", "u")
		errs := []error{get, k.Set(ctx, "s", "u", secret), k.Delete(ctx, "s", "u")}
		for _, err := range errs {
			if err != nil {
				require.NotContains(t, err.Error(), secret)
			}
		}
		return errs
	}
	for _, err := range all(keyringtest.NewLocked()) {
		require.ErrorIs(t, err, persistence.ErrKeyringLocked)
		require.Equal(t, keyring.Locked, keyring.SituationOf(err))
	}
	for _, err := range all(keyringtest.NewAbsent()) {
		require.ErrorIs(t, err, persistence.ErrUnavailable)
	}
	k := keyringtest.New()
	k.SetFull(true)
	require.ErrorIs(t, k.Set(ctx, "s", "u", secret), keyring.Full)
	require.ErrorIs(t, k.Set(ctx, "s", "u", secret), persistence.ErrTooLarge)

	boom := errors.New("boom")
	k = keyringtest.NewFailing(boom)
	for _, err := range all(k) {
		require.ErrorIs(t, err, boom)
	}
	for _, s := range []keyring.Situation{keyring.NoBus, keyring.Denied, keyring.Declined, keyring.NoAnswer} {
		k.SetError(s)
		for _, err := range all(k) {
			require.Equal(t, s, keyring.SituationOf(err))
		}
	}
	k.SetError(nil)
	require.NoError(t, k.Set(ctx, "s", "u", secret))

	k = keyringtest.NewWindows()
	require.NoError(t, k.Set(ctx, "s", "u", strings.Repeat("x", 2560)))
	require.ErrorIs(t, k.Set(ctx, "s", "u", strings.Repeat("y", 2561)), persistence.ErrTooLarge)
	require.Equal(t, strings.Repeat("x", 2560), k.Items()[keyringtest.Item{Service: "s", User: "u"}])

	k = keyringtest.New()
	k.FailAt(2, boom)
	errs := all(k)
	require.ErrorIs(t, errs[0], persistence.ErrNotFound)
	require.ErrorIs(t, errs[1], boom)
	require.ErrorIs(t, errs[2], persistence.ErrNotFound, "what failed did nothing")
	require.Equal(t, []keyringtest.Call{
		{Op: "get", Item: keyringtest.Item{Service: "s", User: "u"}},
		{Op: "set", Item: keyringtest.Item{Service: "s", User: "u"}},
		{Op: "delete", Item: keyringtest.Item{Service: "s", User: "u"}},
	}, k.Calls())

	for _, applied := range []bool{false, true} {
		k = keyringtest.New()
		k.CrashAt(2, applied)
		errs = all(k)
		require.ErrorIs(t, errs[0], persistence.ErrNotFound)
		require.ErrorIs(t, errs[1], keyringtest.ErrCrashed)
		require.ErrorIs(t, errs[2], keyringtest.ErrCrashed)
		_, err := k.Reopen().Get(ctx, "s", "u")
		require.Equal(t, applied, err == nil)
	}
}

func TestPause(t *testing.T) {
	k := keyringtest.New()
	resume := k.Pause()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, k.Set(ctx, "s", "u", "x"), context.Canceled)
	done := make(chan error)
	go func() { done <- k.Set(t.Context(), "s", "u", "y") }()
	for len(k.Calls()) < 2 {
		runtime.Gosched()
	}
	require.Empty(t, k.Items())
	resume()
	resume() // again is fine
	require.NoError(t, <-done)
	require.NoError(t, k.Set(t.Context(), "s", "u", "z"))
}

func TestEnds(t *testing.T) {
	ctx := t.Context()
	calls := func(k *keyringtest.Keyring) (errs []error) {
		_, err := k.Get(ctx, "s", "u")
		return append(errs, err, k.Set(ctx, "s", "u", "x"), k.Delete(ctx, "s", "u"))
	}
	for n := range 3 {
		for i, err := range calls(keyringtest.NewVanishing(n)) {
			require.Equal(t, i >= n, errors.Is(err, persistence.ErrUnavailable), "%d after %d", i, n)
		}
		k := keyringtest.NewRestarting(n)
		for i, err := range calls(k) {
			require.Equal(t, i == n, errors.Is(err, persistence.ErrUnavailable), "%d after %d", i, n)
			require.Equal(t, i > n, errors.Is(err, persistence.ErrKeyringLocked), "%d after %d", i, n)
		}
		k.SetLocked(false)
		k.Clear()
		require.Empty(t, k.Items())
		require.Nil(t, calls(k)[1])
	}
}

func TestHanging(t *testing.T) {
	k := keyringtest.NewHanging(time.Millisecond)
	err := k.Set(t.Context(), "s", "u", "x")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = keyringtest.NewHanging(time.Hour).Delete(ctx, "s", "u")
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, persistence.ErrUnavailable)
	require.Empty(t, k.Items(), "what hangs does nothing")
}

func TestQuota(t *testing.T) {
	k := keyringtest.NewKernel()
	require.Equal(t, 32766, k.ItemLimit("s", "u"))
	require.NoError(t, k.Set(t.Context(), "s", "u", strings.Repeat("x", 19_000)))
	require.ErrorIs(t, k.Set(t.Context(), "s", "v", strings.Repeat("x", 1000)), persistence.ErrTooLarge)
	require.ErrorIs(t, k.Reopen().Set(t.Context(), "s", "v", strings.Repeat("x", 1000)), persistence.ErrTooLarge)
	require.NoError(t, k.Set(t.Context(), "s", "u", strings.Repeat("x", 10)))
	require.NoError(t, k.Set(t.Context(), "s", "v", strings.Repeat("x", 1000)))
	k.Clear()
	n := 0
	for ; k.Set(t.Context(), "s", fmt.Sprint(n), "x") == nil; n++ {
	}
	require.Equal(t, 200, n)
}

func TestList(t *testing.T) {
	for name, k := range map[string]*keyringtest.Keyring{"memory": keyringtest.New(), "folder": keyringtest.NewDir(t.TempDir())} {
		users, err := k.List(t.Context(), "s")
		require.NoError(t, err, name)
		require.Empty(t, users, name)
		for _, item := range []keyringtest.Item{{Service: "s", User: "b"}, {Service: "s", User: "a"}, {Service: "t", User: "c"}} {
			require.NoError(t, k.Set(t.Context(), item.Service, item.User, "x"))
		}
		users, err = k.List(t.Context(), "s")
		require.NoError(t, err, name)
		require.Equal(t, []string{"a", "b"}, users, name)
		k.SetLocked(true)
		_, err = k.List(t.Context(), "s")
		require.ErrorIs(t, err, persistence.ErrKeyringLocked, name)
	}
}

// The mock refuses the names that the real one refuses, with the same error: a test
// that passes with it says something of the real one.
func TestNames(t *testing.T) {
	ctx := t.Context()
	real := keyring.System() // which refuses a name before it asks anybody
	for _, state := range []struct {
		name string
		k    *keyringtest.Keyring
	}{{"works", keyringtest.New()}, {"files", keyringtest.NewDir(t.TempDir())}, {"kernel", keyringtest.NewKernel()}, {"locked", keyringtest.NewLocked()}} {
		for _, i := range []keyringtest.Item{{"", "alice"}, {"app", ""}, {"app", "a\nb"}, {"app", "a\x00b"}, {"a\xff", "alice"}, {"app", strings.Repeat("x", 501)}} {
			_, want := real.Get(ctx, i.Service, i.User)
			_, err := state.k.Get(ctx, i.Service, i.User)
			require.EqualError(t, err, want.Error(), state.name)
			require.Contains(t, persistence.Remedy(err), "1 to 500 bytes")
			require.EqualError(t, state.k.Set(ctx, i.Service, i.User, "x"), real.Set(ctx, i.Service, i.User, "x").Error(), state.name)
			require.EqualError(t, state.k.Delete(ctx, i.Service, i.User), real.Delete(ctx, i.Service, i.User).Error(), state.name)
			require.Empty(t, state.k.Items())
		}
		_, err := state.k.List(ctx, "")
		require.ErrorContains(t, err, "the service is empty", state.name)
	}
	require.NoError(t, keyringtest.New().Set(ctx, "app", strings.Repeat("x", 500), "x"), "control")
}
