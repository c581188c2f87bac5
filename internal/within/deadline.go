package within

import (
	"context"
	"sync"
	"time"
)

// Deadline returns ctx, with a deadline after d if it has none, and a function that
// releases it. The time starts when somebody first waits for the context or asks for
// its deadline. So a call that waits for nothing makes no timer, which would cost as
// much as a whole warm Replace.
func Deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	l := &lateTimeout{Context: ctx, timeout: d}
	return l, l.cancel
}

// lateTimeout is a context with a timeout that starts late. Once it runs, Value
// answers as the inner context does, so that contexts derived from it need no
// goroutine of their own.
type lateTimeout struct {
	context.Context
	timeout time.Duration

	mu      sync.Mutex
	running context.Context // nil until somebody waits
	end     context.CancelFunc
}

func (l *lateTimeout) run() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == nil {
		l.running, l.end = context.WithTimeout(l.Context, l.timeout)
	}
	return l.running
}

func (l *lateTimeout) soFar() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == nil {
		return l.Context
	}
	return l.running
}

func (l *lateTimeout) cancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != nil {
		l.end()
	}
}

// Deadline starts the timeout and returns when it ends.
func (l *lateTimeout) Deadline() (time.Time, bool) { return l.run().Deadline() }

// Done starts the timeout and returns the channel that its end closes.
func (l *lateTimeout) Done() <-chan struct{} { return l.run().Done() }

// Err returns why the context has ended, if it has.
func (l *lateTimeout) Err() error { return l.soFar().Err() }

// Value returns the value of key.
func (l *lateTimeout) Value(key any) any { return l.soFar().Value(key) }
