package filelock

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
