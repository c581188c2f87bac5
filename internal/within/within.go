// Package within ends waits when a context ends: the wait for a call that takes no
// context, the wait before another try, and the wait of a caller that has set no
// deadline.
package within

import (
	"context"
	"math/rand/v2"
	"time"
)

// Call returns what f returns or, when ctx ends first, ctx's error. Then f is
// left behind in its goroutine: it must not use anything that belongs to the
// caller. If both are there, f's result counts.
func Call[T any](ctx context.Context, f func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if ctx.Done() == nil {
		return f()
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1) // with room, so that f can end when nobody waits any more
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.value, r.err
	default:
		return none, ctx.Err()
	}
}

// The waits between the tries of [Retry] grow from firstWait to longestWait, on
// average.
const (
	firstWait   = time.Millisecond
	longestWait = 100 * time.Millisecond
)

// Retry calls try until it succeeds, or until it fails with an error for which
// again returns false. It returns try's last error. Between two tries it waits for a
// random time, longer each time, so that several processes do not try at the same
// moments. When ctx ends during a wait, it returns the last error of try and ended =
// true.
func Retry(ctx context.Context, again func(error) bool, try func() error) (err error, ended bool) {
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		if err := try(); err == nil || !again(err) {
			return err, false
		} else if !Sleep(ctx, wait) {
			return err, true
		}
	}
}

// Sleep waits for a random time, d on average. It returns false if ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
