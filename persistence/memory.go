package persistence

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"sync"
)

// Memory is a [Persistence] in this process's memory: for tests, and for
// programs that keep nothing between runs. It is a [Versioned] and a
// [NamedLocker], and safe for concurrent use. The zero value is not usable; see
// [NewMemory].
type Memory struct {
	mu    sync.Mutex
	data  []byte
	rev   string // "" when nothing is stored
	locks map[string]chan struct{}
}

// NewMemory returns a Memory with nothing stored.
func NewMemory() *Memory { return &Memory{locks: map[string]chan struct{}{}} }

func (m *Memory) fail(op string, err error) error {
	return &Error{Op: op, Backend: "memory", Err: err}
}

// Load implements [Persistence].
func (m *Memory) Load(ctx context.Context) ([]byte, error) {
	data, _, err := m.LoadRevision(ctx)
	return data, err
}

// Save implements [Persistence].
func (m *Memory) Save(ctx context.Context, data []byte) error {
	_, err := m.save(ctx, data, nil)
	return err
}

// Delete implements [Persistence].
func (m *Memory) Delete(ctx context.Context) error { return m.delete(ctx, nil) }

// Revision implements [Versioned].
func (m *Memory) Revision(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", m.fail("revision", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rev, nil
}

// LoadRevision implements [Versioned].
func (m *Memory) LoadRevision(ctx context.Context) ([]byte, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", m.fail("load", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rev == "" {
		return nil, "", m.fail("load", ErrNotFound)
	}
	return append([]byte{}, m.data...), m.rev, nil
}

// SaveIf implements [Versioned].
func (m *Memory) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	return m.save(ctx, data, &rev)
}

// DeleteIf implements [Versioned].
func (m *Memory) DeleteIf(ctx context.Context, rev string) error { return m.delete(ctx, &rev) }

// save and delete take any revision when want is nil.
func (m *Memory) save(ctx context.Context, data []byte, want *string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", m.fail("save", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if want != nil && *want != m.rev {
		return "", m.fail("save", ErrConflict)
	}
	m.data, m.rev = bytes.Clone(data), rand.Text()
	return m.rev, nil
}

func (m *Memory) delete(ctx context.Context, want *string) error {
	if err := ctx.Err(); err != nil {
		return m.fail("delete", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if want != nil && *want != m.rev {
		return m.fail("delete", ErrConflict)
	}
	m.data, m.rev = nil, ""
	return nil
}

// Lock implements [Locker].
func (m *Memory) Lock(ctx context.Context) (func() error, error) { return m.lock(ctx, "") }

// LockName implements [NamedLocker].
func (m *Memory) LockName(ctx context.Context, name string) (func() error, error) {
	return m.lock(ctx, "name "+name)
}

func (m *Memory) lock(ctx context.Context, name string) (func() error, error) {
	m.mu.Lock()
	l, ok := m.locks[name]
	if !ok {
		l = make(chan struct{}, 1)
		m.locks[name] = l
	}
	m.mu.Unlock()
	select {
	case l <- struct{}{}:
		var once sync.Once
		return func() error { once.Do(func() { <-l }); return nil }, nil
	case <-ctx.Done():
		return nil, m.fail("lock", fmt.Errorf("%w: %w", ErrLockTimeout, ctx.Err()))
	}
}

// Describe implements [Describer].
func (m *Memory) Describe() Description { return Description{Backend: "memory"} }
