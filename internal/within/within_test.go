package within_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/within"
)

func TestCallReturnsWhatTheFunctionReturns(t *testing.T) {
	got, err := within.Call(t.Context(), func() (string, error) { return "value", nil })
	require.NoError(t, err)
	require.Equal(t, "value", got)

	failure := errors.New("no")
	_, err = within.Call(t.Context(), func() (string, error) { return "", failure })
	require.Same(t, failure, err)
}

func TestCallLeavesTheFunctionBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hang := make(chan struct{})
		_, err := within.Call(ctx, func() (int, error) { <-hang; return 1, nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		close(hang) // it ends by itself: else synctest reports a goroutine left
	})
}

func TestCallDoesNotBeginAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := within.Call(ctx, func() (int, error) { t.Error("called"); return 0, nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestRetry(t *testing.T) {
	conflict, other := errors.New("conflict"), errors.New("other")
	again := func(err error) bool { return errors.Is(err, conflict) }
	synctest.Test(t, func(t *testing.T) {
		start, tries := time.Now(), 0
		err, ended := within.Retry(t.Context(), again, func() error {
			if tries++; tries < 20 {
				return conflict
			}
			return other
		})
		require.Same(t, other, err)
		require.False(t, ended)
		require.Equal(t, 20, tries)
		// 19 waits: seven that double from 1 ms, then twelve of 100 ms, each half
		// as long to half as long again.
		require.Greater(t, time.Since(start), 12*50*time.Millisecond)
		require.Less(t, time.Since(start), 12*150*time.Millisecond+200*time.Millisecond)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err, ended = within.Retry(ctx, again, func() error { return conflict })
		require.Same(t, conflict, err)
		require.True(t, ended)
	})
}

func TestDeadlineStartsWhenSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := within.Deadline(t.Context(), time.Second)
		defer cancel()
		time.Sleep(time.Hour)
		require.NoError(t, ctx.Err(), "nobody has waited yet")
		<-ctx.Done()
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	})
}

func TestDeadlineKeepsTheCallersOwn(t *testing.T) {
	own, end := context.WithTimeout(t.Context(), time.Hour)
	defer end()
	ctx, cancel := within.Deadline(own, time.Second)
	defer cancel()
	require.Equal(t, own, ctx)
}

func TestDeadlineEndsWithTheCaller(t *testing.T) {
	own, end := context.WithCancel(t.Context())
	ctx, cancel := within.Deadline(own, time.Hour)
	defer cancel()
	derived, stop := context.WithCancel(ctx)
	defer stop()
	end()
	<-derived.Done()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
}
