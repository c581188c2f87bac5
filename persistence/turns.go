package persistence

import (
	"context"
	"fmt"
	"sync"
)

// turns lets one caller at a time have a key; the others wait in the order in
// which they came. The zero turns has all keys free.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

// turn is that of one key. It is there while somebody has it or waits for it.
type turn struct {
	sem   chan struct{}
	users int
}

// take waits for the key until ctx ends, and then returns ctx's error. end gives
// the key to the next one; only its first call counts.
func (t *turns) take(ctx context.Context, key string) (end func(), err error) {
	t.mu.Lock()
	of := t.of[key]
	if of == nil {
		if t.of == nil {
			t.of = map[string]*turn{}
		}
		of = &turn{sem: make(chan struct{}, 1)}
		t.of[key] = of
	}
	of.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if of.users--; of.users == 0 {
			delete(t.of, key)
		}
	}
	select {
	case of.sem <- struct{}{}:
	default: // only those that wait need a deadline
		select {
		case of.sem <- struct{}{}:
		case <-ctx.Done():
			leave()
			return nil, ctx.Err()
		}
	}
	return sync.OnceFunc(func() { <-of.sem; leave() }), nil
}

// turnLock has those wait for each other that have the turns of one key.
type turnLock struct {
	turns *turns
	key   string
	store Versioned
}

func (l turnLock) Lock(ctx context.Context) (unlock func() error, err error) {
	end, err := l.turns.take(ctx, l.key)
	if err != nil {
		return nil, failure(Describe(l.store), "lock", fmt.Errorf("%w: %w", ErrLockTimeout, err), "The program itself is storing these tokens; try again.")
	}
	return func() error { end(); return nil }, nil
}
