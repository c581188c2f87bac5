package persistence

import (
	"context"
	"slices"
	"sync"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// Why a context carries locks. Move holds the locks of both its backends while it
// calls their LoadRevision, SaveIf and DeleteIf, and those take the same locks
// again: a FileLock lets its own Hold in under its own Lock, so that works for a
// lock that a backend has to itself. But the two backends may have two FileLocks
// of one file, by one path or by two (the encrypted and the plaintext file of one
// cache, opened on their own). Then Move would wait for itself, in the second Lock
// or in a Hold. Move cannot see which FileLocks there are inside a backend: it knows
// them as Locker, whose Lock takes only a context. So the context says which files this
// Move has locked and by which FileLock, and Lock and Hold of another FileLock of such a
// file rely on that one. No other caller's context does this: for everybody else the
// locks of one file exclude each other.

// locks are what one [Move] has locked. Its context carries them, so that two
// FileLocks of one file do not wait for each other.
type locks struct {
	mu     sync.Mutex
	held   []heldLock
	shared bool // one was to be locked twice
}

// heldLock is a FileLock that is locked. Its file may have several names.
type heldLock struct {
	*FileLock
	id    securefile.ID
	known bool // id is
}

func (h heldLock) isOf(l *FileLock, id securefile.ID, known bool) bool {
	return h.Path() == l.Path() || h.known && known && h.id == id
}

func fileOf(l *FileLock) (id securefile.ID, known bool) {
	id, err := securefile.IDOf(l.Path())
	return id, err == nil
}

type locksKey struct{}

func withLocks(ctx context.Context) context.Context {
	return context.WithValue(ctx, locksKey{}, &locks{})
}

// locksOf returns the locks that ctx carries, or nil, whose methods work too.
func locksOf(ctx context.Context) *locks {
	h, _ := ctx.Value(locksKey{}).(*locks)
	return h
}

// owner returns the FileLock that holds the lock of l's file, or nil.
func (h *locks) owner(l *FileLock) *FileLock {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.held) == 0 {
		return nil
	}
	id, known := fileOf(l)
	for _, held := range h.held {
		if held.isOf(l, id, known) {
			return held.FileLock
		}
	}
	return nil
}

// reenter reports whether l may be locked although its file is locked already.
func (h *locks) reenter(l *FileLock) bool {
	if h.owner(l) == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shared = true
	return true
}

func (h *locks) isShared() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shared
}

func (h *locks) add(l *FileLock) {
	if h != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		id, known := fileOf(l)
		h.held = append(h.held, heldLock{l, id, known})
	}
}

func (h *locks) remove(l *FileLock) {
	if h != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held = slices.DeleteFunc(h.held, func(held heldLock) bool { return held.FileLock == l })
	}
}
