package persistence

import (
	"context"
	"sync"
	"time"
)

// bounded returns ctx, with a deadline if it has none, and what ends it.
func (c *Cache) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	l := &lateTimeout{Context: ctx, timeout: c.timeout}
	return l, l.cancel
}

// lateTimeout is a context with a timeout that starts to run when somebody
// first waits for it. Most calls wait for nothing, and making a timer for them
// would cost as much as all the rest.
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

func (l *lateTimeout) Deadline() (time.Time, bool) { return l.run().Deadline() }
func (l *lateTimeout) Done() <-chan struct{}       { return l.run().Done() }
func (l *lateTimeout) Err() error                  { return l.soFar().Err() }
func (l *lateTimeout) Value(key any) any           { return l.soFar().Value(key) }
