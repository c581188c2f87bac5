package tokensource

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// air is flights whose runs wait until they are told how to go on.
type air struct {
	flights[int]
	mutex  sync.Mutex
	runs   int
	commit chan struct{} // one run commits
	land   chan int      // one run returns this
	ended  []error       // of the contexts of the runs that were ended
}

func newAir(grace time.Duration) *air {
	a := &air{commit: make(chan struct{}), land: make(chan int)}
	a.flights = flights[int]{mu: &a.mutex, grace: grace, run: func(ctx context.Context, f *flight[int]) (int, error) {
		a.mutex.Lock()
		a.runs++
		a.mutex.Unlock()
		for {
			select {
			case <-a.commit:
				if !f.commit() {
					return 0, context.Canceled
				}
			case n := <-a.land:
				return n, nil
			case <-ctx.Done():
				a.mutex.Lock()
				defer a.mutex.Unlock()
				a.ended = append(a.ended, ctx.Err())
				return 0, ctx.Err()
			}
		}
	}}
	return a
}

func (a *air) ends() []error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.ended
}

type landed struct {
	n   int
	err error
}

// call is a caller in a goroutine that waits already.
func (a *air) call(ctx context.Context) <-chan landed {
	got := make(chan landed, 1)
	go func() {
		n, err := a.do(ctx)
		got <- landed{n, err}
	}()
	synctest.Wait()
	return got
}

func TestFlightIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(time.Minute)
		first, second := a.call(t.Context()), a.call(t.Context())
		a.land <- 7
		require.Equal(t, landed{7, nil}, <-first)
		require.Equal(t, landed{7, nil}, <-second)
		third := a.call(t.Context())
		a.land <- 8
		require.Equal(t, landed{8, nil}, <-third)
		require.Equal(t, 2, a.runs)
	})
}

func TestFlightEndsWithItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		first := a.call(ctx)
		other, cancelOther := context.WithTimeout(t.Context(), time.Hour)
		defer cancelOther()
		second := a.call(other)
		cancel()
		var left *leftError
		require.ErrorAs(t, (<-first).err, &left)
		require.ErrorIs(t, left, context.Canceled)
		require.False(t, left.committed)
		require.Empty(t, a.ends(), "another one waits")
		require.ErrorIs(t, (<-second).err, context.DeadlineExceeded)
		synctest.Wait()
		require.Len(t, a.ends(), 1)
		a.mutex.Lock()
		defer a.mutex.Unlock()
		require.Nil(t, a.current)
	})
}

func TestFlightOutlivesItsCallersOnceCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(time.Minute)
		leave := func() {
			ctx, cancel := context.WithCancel(t.Context())
			got := a.call(ctx)
			if a.runs == 1 {
				select {
				case a.commit <- struct{}{}:
				default:
				}
				synctest.Wait()
			}
			cancel()
			var left *leftError
			require.ErrorAs(t, (<-got).err, &left)
			require.True(t, left.committed)
		}
		leave()
		time.Sleep(59 * time.Second)
		leave() // another caller starts the grace period again
		time.Sleep(59 * time.Second)
		synctest.Wait()
		require.Empty(t, a.ends())
		back := a.call(t.Context())
		time.Sleep(time.Hour) // with a caller it has all the time
		synctest.Wait()
		require.Empty(t, a.ends())
		a.land <- 7
		require.Equal(t, landed{7, nil}, <-back)
		require.Equal(t, 1, a.runs)

		leaveForGood, cancel := context.WithCancel(t.Context())
		got := a.call(leaveForGood)
		a.commit <- struct{}{}
		synctest.Wait()
		cancel()
		require.Error(t, (<-got).err)
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		require.Len(t, a.ends(), 1)
	})
}

// A run that nobody waits for does not commit, and nobody joins it any more.
func TestFlightDoesNotCommitForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a flights[int]
		asked, goOn := make(chan struct{}), make(chan struct{})
		var committed []bool
		a = flights[int]{mu: new(sync.Mutex), grace: time.Minute, run: func(ctx context.Context, f *flight[int]) (int, error) {
			asked <- struct{}{}
			<-goOn
			committed = append(committed, f.commit())
			return len(committed), nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		go a.do(ctx)
		<-asked
		cancel()
		synctest.Wait()
		goOn <- struct{}{}
		synctest.Wait()
		got := make(chan int)
		go func() {
			n, err := a.do(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- n
		}()
		<-asked
		goOn <- struct{}{}
		require.Equal(t, 2, <-got)
		require.Equal(t, []bool{false, true}, committed)
	})
}

// What is done later may ask for a result itself, and is done before anybody has
// this one.
func TestFlightLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		inner := 0
		var a flights[int]
		a = flights[int]{mu: new(sync.Mutex), run: func(_ context.Context, f *flight[int]) (int, error) {
			runs++
			if runs == 1 {
				f.later(func() { inner, _ = a.do(t.Context()) })
			}
			return runs, nil
		}}
		n, err := a.do(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, 2, inner)
	})
}

// The run has the values of the caller that began it, and its error is everybody's.
func TestFlightContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type name struct{}
		failure := errors.New("no")
		var value any
		a := flights[int]{mu: new(sync.Mutex), run: func(ctx context.Context, _ *flight[int]) (int, error) {
			value = ctx.Value(name{})
			_, deadline := ctx.Deadline()
			if deadline {
				t.Error("the caller's deadline is not the run's")
			}
			return 0, failure
		}}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), name{}, "x"), time.Minute)
		defer cancel()
		_, err := a.do(ctx)
		require.Same(t, failure, err)
		require.Equal(t, "x", value)
	})
}
