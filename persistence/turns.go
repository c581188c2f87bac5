package persistence

import (
	"context"
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

// taken reports whether somebody has the key.
func (t *turns) taken(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[key] != nil
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
