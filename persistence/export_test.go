package persistence

import (
	"testing"
	"time"
)

// Remembered returns how many in-memory caches c remembers.
func Remembered(c *Cache) int { return c.memories.Len() }

// RememberedOf is Remembered for a Partitioned.
func RememberedOf(p *Partitioned) int { return p.memories.Len() }

// ForgetUnsavedAfter makes them be kept for so long only, for the rest of a test.
func ForgetUnsavedAfter(t *testing.T, d time.Duration) {
	before := outboxTime
	outboxTime = d
	t.Cleanup(func() { outboxTime = before })
}

// WithClock sets the clock that says how long ago a sign-out was.
func WithClock(now func() time.Time) Option {
	return func(s *settings) error { s.now = now; return nil }
}

// InTurn returns how many calls have the partition's turn, or wait for it.
func InTurn(p *Partitioned, partition string) int { return p.turns.usersOf(partition) }

func (t *turns) usersOf(key string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of := t.of[key]; of != nil {
		return of.users
	}
	return 0
}

// Followed is own with neighbours, as a Cache with WithFollow has it.
func Followed(own Versioned, neighbours ...Neighbour) (Versioned, error) {
	c, err := New(own, WithFollow(neighbours...))
	if err != nil {
		return nil, err
	}
	return c.store, nil
}
