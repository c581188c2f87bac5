package filelock

import (
	"io/fs"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// NewAlone is New for a Lock that waits by itself, as if no other Lock of its
// file were in this process.
func NewAlone(path string) *Lock {
	l := New(path, true)
	l.alone = l
	return l
}

// Queues returns how many files goroutines of this process have locked or wait
// for.
func Queues() int {
	queues.mu.Lock()
	defer queues.mu.Unlock()
	return len(queues.byKey)
}

// WithIdentity replaces what tells files apart, until the test ends.
func WithIdentity(t interface{ Cleanup(func()) }, same func(a, b fs.FileInfo) bool, id func(path string) (securefile.ID, error)) {
	oldSame, oldID := sameFile, idOf
	t.Cleanup(func() { sameFile, idOf = oldSame, oldID })
	sameFile, idOf = same, id
}

// WaitsFor returns the file that a goroutine waits for in a blocking flock on behalf
// of l, which is of NewAlone.
func WaitsFor(l *Lock) (id securefile.ID) {
	queues.mu.Lock()
	defer queues.mu.Unlock()
	for k, q := range queues.byKey {
		if k.alone != l {
			continue
		}
		q.mu.Lock()
		if w := q.waiter; w != nil {
			w.attempt.mu.Lock()
			id = w.attempt.was
			w.attempt.mu.Unlock()
		}
		q.mu.Unlock()
	}
	return id
}
