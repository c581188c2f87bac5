package persistence

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/opaque"
)

// Memory is a [Persistence] in this process's memory: for tests, and for
// programs that keep nothing between runs. It is a [Versioned], a [NamedLocker]
// and a [Leaser], and safe for concurrent use. Packages fmt and log/slog print
// its description, never its data. The zero value cannot be used; see
// [NewMemory].
type Memory struct {
	state func() *memory // hidden from fmt
}

var (
	_ Versioned   = (*Memory)(nil)
	_ NamedLocker = (*Memory)(nil)
	_ Leaser      = (*Memory)(nil)
	_ Describer   = (*Memory)(nil)
)

type memory struct {
	mu    sync.Mutex
	data  []byte
	rev   string // "" when nothing is stored
	locks map[string]chan struct{}

	owner string // of the lease; "" for nobody
	until time.Time
}

// NewMemory returns a Memory with nothing stored.
func NewMemory() *Memory { return &Memory{opaque.Hide(&memory{locks: map[string]chan struct{}{}})} }

func (*Memory) fail(op string, err error) error {
	return &Error{Op: op, Backend: "memory", Err: err}
}

func (m *Memory) Load(ctx context.Context) ([]byte, error) {
	data, _, err := m.LoadRevision(ctx)
	return data, err
}

func (m *Memory) Save(ctx context.Context, data []byte) error {
	_, err := m.save(ctx, data, nil)
	return err
}

func (m *Memory) Delete(ctx context.Context) error { return m.delete(ctx, nil) }

func (m *Memory) Revision(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", m.fail("revision", err)
	}
	s := m.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev, nil
}

func (m *Memory) LoadRevision(ctx context.Context) ([]byte, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", m.fail("load", err)
	}
	s := m.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rev == "" {
		return nil, "", m.fail("load", ErrNotFound)
	}
	return append([]byte{}, s.data...), s.rev, nil
}

func (m *Memory) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	return m.save(ctx, data, &rev)
}

func (m *Memory) DeleteIf(ctx context.Context, rev string) error { return m.delete(ctx, &rev) }

// save and delete take any revision when want is nil.
func (m *Memory) save(ctx context.Context, data []byte, want *string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", m.fail("save", err)
	}
	s := m.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	if want != nil && *want != s.rev {
		return "", m.fail("save", ErrConflict)
	}
	s.data, s.rev = bytes.Clone(data), rand.Text()
	return s.rev, nil
}

func (m *Memory) delete(ctx context.Context, want *string) error {
	if err := ctx.Err(); err != nil {
		return m.fail("delete", err)
	}
	s := m.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	if want != nil && *want != s.rev {
		return m.fail("delete", ErrConflict)
	}
	s.data, s.rev = nil, ""
	return nil
}

func (m *Memory) Lock(ctx context.Context) (func() error, error) { return m.lock(ctx, "") }

func (m *Memory) LockName(ctx context.Context, name string) (func() error, error) {
	return m.lock(ctx, "name "+name)
}

func (m *Memory) lock(ctx context.Context, name string) (func() error, error) {
	failed := func() (func() error, error) {
		return nil, m.fail("lock", fmt.Errorf("%w: %w", ErrLockTimeout, ctx.Err()))
	}
	if ctx.Err() != nil {
		return failed()
	}
	s := m.state()
	s.mu.Lock()
	l, ok := s.locks[name]
	if !ok {
		l = make(chan struct{}, 1)
		s.locks[name] = l
	}
	s.mu.Unlock()
	select {
	case l <- struct{}{}:
		var once sync.Once
		return func() error { once.Do(func() { <-l }); return nil }, nil
	case <-ctx.Done():
		return failed()
	}
}

// Lease implements [Leaser].
func (m *Memory) Lease(ctx context.Context, owner string, d time.Duration) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, m.fail("lease", err)
	}
	s := m.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != "" && s.owner != owner && time.Now().Before(s.until) {
		return false, nil
	}
	s.owner, s.until = owner, time.Now().Add(d)
	return true, nil
}

// Release implements [Leaser].
func (m *Memory) Release(ctx context.Context, owner string) error {
	if err := ctx.Err(); err != nil {
		return m.fail("release", err)
	}
	s := m.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner == owner {
		s.owner = ""
	}
	return nil
}

// Describe says that the backend is "memory".
func (m *Memory) Describe() Description { return Description{Backend: "memory"} }

// String returns "memory".
func (Memory) String() string { return "memory" }

// Format prints what String returns, for every verb.
func (m Memory) Format(s fmt.State, verb rune) { opaque.Format(s, verb, m.String()) }

// LogValue returns what String returns.
func (m Memory) LogValue() slog.Value { return slog.StringValue(m.String()) }
