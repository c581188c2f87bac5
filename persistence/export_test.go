package persistence

import (
	"testing"
	"time"
)

// Remembered returns how many in-memory caches c remembers.
func Remembered(c *Cache) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.inMemory)
}

// RememberedOf is Remembered for a Partitioned.
func RememberedOf(p *Partitioned) int { return Remembered(p.front) }

// Unsaved returns of how many partitions p keeps what could not be stored.
func Unsaved(p *Partitioned) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.unsaved)
}

// MaxUnsaved is how many those can be.
const MaxUnsaved = maxUnsaved

// ForgetUnsavedAfter makes them be kept for so long only, for the rest of a test.
func ForgetUnsavedAfter(t *testing.T, d time.Duration) {
	before := unsavedFor
	unsavedFor = d
	t.Cleanup(func() { unsavedFor = before })
}
