package persistence_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

var _ persistence.NamedLocker = (*persistence.FileLock)(nil)

func newFileLock(t *testing.T) (l *persistence.FileLock, path string) {
	path = filepath.Join(t.TempDir(), "folder", "cache.lock")
	return persistence.NewFileLock(path), path
}

func lockTimesOut(t *testing.T, path string, lock func(context.Context) (func() error, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := lock(ctx)
	require.ErrorIs(t, err, persistence.ErrLockTimeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	e, ok := err.(*persistence.Error)
	require.True(t, ok, "%T", err)
	require.Equal(t, "lock", e.Op)
	require.Equal(t, path, e.Location)
	require.NotEmpty(t, e.Backend)
	require.NotEmpty(t, e.Remedy)
	require.Contains(t, err.Error(), strconv.Itoa(os.Getpid()), "the holder is named")
}

func TestFileLock(t *testing.T) {
	l, path := newFileLock(t)
	require.NoFileExists(t, path)
	require.Equal(t, path, l.Path())
	unlock, err := l.Lock(t.Context())
	require.NoError(t, err)
	lockTimesOut(t, path, l.Lock)
	lockTimesOut(t, path, persistence.NewFileLock(path).Lock)
	require.NoError(t, unlock())
	require.NoError(t, unlock())
	again, err := l.Lock(t.Context())
	require.NoError(t, err)
	require.NoError(t, unlock()) // does not let the new one go
	lockTimesOut(t, path, persistence.NewFileLock(path).Lock)
	require.NoError(t, again())
	require.FileExists(t, path)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = l.Lock(ctx)
	require.ErrorIs(t, err, persistence.ErrLockTimeout)
	require.ErrorIs(t, err, context.Canceled)
}

func TestFileLockNames(t *testing.T) {
	l, path := newFileLock(t)
	other := persistence.NewFileLock(path)
	unlock, err := l.Lock(t.Context())
	require.NoError(t, err)
	a, err := l.LockName(t.Context(), "a")
	require.NoError(t, err)
	b, err := other.LockName(t.Context(), "b/../..") // the name is no part of a path
	require.NoError(t, err)
	names, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Len(t, names, 4, "%v", names)
	for _, l := range []*persistence.FileLock{l, other} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		_, err = l.LockName(ctx, "a")
		cancel()
		require.ErrorIs(t, err, persistence.ErrLockTimeout)
	}
	require.NoError(t, a())
	require.NoError(t, a())
	a, err = other.LockName(t.Context(), "a")
	require.NoError(t, err)
	for _, f := range []func() error{a, b, unlock} {
		require.NoError(t, f())
	}
}

// Hold runs under a Lock that is there, whose release waits for it, and else
// takes the lock itself.
func TestFileLockHold(t *testing.T) {
	l, path := newFileLock(t)
	other := persistence.NewFileLock(path)

	require.NoError(t, l.Hold(t.Context(), func() error {
		lockTimesOut(t, path, other.Lock)
		return nil
	}))
	failed := errors.New("failed")
	require.Equal(t, failed, l.Hold(t.Context(), func() error { return failed }))
	unlock, err := other.Lock(t.Context()) // it is free after each
	require.NoError(t, err)
	lockTimesOut(t, path, func(ctx context.Context) (func() error, error) {
		return nil, l.Hold(ctx, func() error { t.Error("held twice"); return nil })
	})
	require.NoError(t, unlock())

	unlock, err = l.Lock(t.Context())
	require.NoError(t, err)
	released := make(chan error)
	require.NoError(t, l.Hold(t.Context(), func() error {
		go func() { released <- unlock() }()
		select {
		case <-released:
			t.Error("released under a Hold")
		case <-time.After(10 * time.Millisecond): // long enough to be caught, most of the time
		}
		lockTimesOut(t, path, other.Lock)
		return nil
	}))
	require.NoError(t, <-released)
	unlock, err = other.Lock(t.Context())
	require.NoError(t, err)
	require.NoError(t, unlock())
}

// Two functions never run at once, whether their Holds rely on a Lock, on each
// other, or on themselves.
func TestFileLockHoldsConcurrently(t *testing.T) {
	l, path := newFileLock(t)
	other := persistence.NewFileLock(path)
	var inside atomic.Int32
	n := 0
	work := func() error {
		if inside.Add(1) != 1 {
			t.Error("another one inside")
		}
		n++
		inside.Add(-1)
		return nil
	}
	var group sync.WaitGroup
	for w := range 6 {
		group.Go(func() {
			for i := range 40 {
				l := l
				if w == 0 {
					l = other
				}
				if (i+w)%2 == 0 {
					unlock, err := l.Lock(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					defer func() {
						if err := unlock(); err != nil { // again
							t.Error(err)
						}
					}()
					if err := l.Hold(t.Context(), work); err != nil {
						t.Error(err)
					}
					if err := unlock(); err != nil {
						t.Error(err)
					}
				} else if err := l.Hold(t.Context(), work); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	require.Equal(t, 240, n)
}

// While another Hold runs its function, a Hold under the same Lock waits no
// longer than its context.
func TestFileLockHoldTimesOut(t *testing.T) {
	l, path := newFileLock(t)
	require.NoError(t, l.Hold(t.Context(), func() error {
		lockTimesOut(t, path, func(ctx context.Context) (func() error, error) {
			return nil, l.Hold(ctx, func() error { t.Error("two at once"); return nil })
		})
		return nil
	}))
}

// A panic in the function lets the lock go.
func TestFileLockHoldPanics(t *testing.T) {
	l, _ := newFileLock(t)
	require.PanicsWithValue(t, "x", func() { l.Hold(t.Context(), func() error { panic("x") }) })
	require.NoError(t, l.Hold(t.Context(), func() error { return nil }))
}
