package tokensource

import (
	"context"
	"sync"
	"time"
)

// flights lets all who ask for a result at the same time share one run of a
// function (single-flight). The run has a goroutine and a context of its own.
// A caller that stops waiting ends it only if it was the last one, and only
// before [flight.commit]; after that the run goes on without callers.
type flights[T any] struct {
	// mu is the owner's mutex, so that the owner can look at its state and
	// detach a flight in one step.
	mu    *sync.Mutex
	grace time.Duration // how long a committed run may go on without callers
	run   func(ctx context.Context, f *flight[T]) (T, error)

	current *flight[T] // the one that new callers wait for; guarded by mu
}

// flight is one run.
type flight[T any] struct {
	all    *flights[T]
	cancel context.CancelFunc
	done   chan struct{} // closed when value and err are set
	value  T
	err    error
	after  []func()

	// Guarded by all.mu.
	callers   int
	committed bool
	end       *time.Timer // ends a committed run without callers
}

// leftError is the error of a caller that stopped waiting.
type leftError struct {
	committed bool
	cause     error // of its context
}

func (e *leftError) Error() string { return e.cause.Error() }
func (e *leftError) Unwrap() error { return e.cause }

// do returns the result of the current flight or, if there is none, of a new one,
// whose context has the values of ctx. If ctx ends first, the error is a
// *leftError.
func (a *flights[T]) do(ctx context.Context) (T, error) {
	a.mu.Lock()
	f := a.current
	if f == nil {
		f = &flight[T]{all: a, done: make(chan struct{})}
		var work context.Context
		work, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		a.current = f
		go f.fly(work)
	}
	f.callers++
	if f.end != nil {
		f.end.Stop()
	}
	a.mu.Unlock()
	return f.wait(ctx)
}

func (f *flight[T]) wait(ctx context.Context) (T, error) {
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
	}
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	f.callers--
	switch {
	case f.callers > 0:
	case f.committed:
		f.end = time.AfterFunc(f.all.grace, f.cancel)
	default:
		f.detach()
		f.cancel()
	}
	var none T
	return none, &leftError{f.committed, ctx.Err()}
}

func (f *flight[T]) fly(ctx context.Context) {
	f.value, f.err = f.all.run(ctx, f)
	f.all.mu.Lock()
	f.detach()
	if f.end != nil {
		f.end.Stop()
	}
	f.all.mu.Unlock()
	f.cancel()
	for _, do := range f.after {
		do()
	}
	close(f.done)
}

// commit is called by the run before what must be carried through. It reports
// whether the run is to go on: false means that nobody waits for it any more.
func (f *flight[T]) commit() bool {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	f.committed = f.callers > 0
	if !f.committed {
		f.detach()
	}
	return f.committed
}

// later registers do, to be called when the run is over. New callers start another
// run then, so do itself may be a caller.
func (f *flight[T]) later(do func()) { f.after = append(f.after, do) }

// detach makes new callers start another flight. It is called with mu held.
func (f *flight[T]) detach() {
	if f.attached() {
		f.all.current = nil
	}
}

// attached reports whether new callers still join. It is called with mu held.
func (f *flight[T]) attached() bool { return f.all.current == f }
