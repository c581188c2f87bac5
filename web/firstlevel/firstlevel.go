// Package firstlevel keeps token caches of a store in this process's memory, in
// front of the store, and believes none of them before the store has said that
// it is current.
//
//	memory := firstlevel.New(nil) // one for the program
//	cache, err := persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) {
//		return memory.Account(key, store.Account(key)), nil
//	})
//
// A load asks the store for the account's revision, a few bytes, and for the
// data only if memory does not have just that revision. So another server's
// write is never missed, and a load that finds its data in memory costs one
// small round trip. It is worth it where the data is far away, or large; where a
// round trip costs more than the data that comes with it, as with a small cache
// in a Redis nearby, it gains little.
//
// What is in memory is as it was loaded. In front of package sealed's accounts
// it is in plain text, and hits are not decrypted again; behind them it is
// sealed, as in the store.
package firstlevel

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"sync"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/forward"
)

// The bounds of a [Memory] whose Options name none.
const (
	DefaultMaxBytes    = 64 << 20
	DefaultMaxAccounts = 10_000
)

// Options are the bounds of a [Memory]. The zero value is right for most.
type Options struct {
	MaxBytes    int // of data and keys; 0 means DefaultMaxBytes
	MaxAccounts int // 0 means DefaultMaxAccounts
}

// Memory holds the data of the accounts that were used last, within bounds.
// It is safe for concurrent use.
type Memory struct {
	maxBytes, maxAccounts int

	mu    sync.Mutex
	of    map[string]*list.Element // of *held
	order list.List                // the one used last first
	bytes int
}

// held is what is in memory of one account. It is never changed.
type held struct {
	key, rev string
	data     []byte
}

func (h *held) size() int { return len(h.key) + len(h.rev) + len(h.data) }

// New returns a Memory with nothing in it. A nil opts means the defaults.
func New(opts *Options) *Memory {
	m := &Memory{maxBytes: DefaultMaxBytes, maxAccounts: DefaultMaxAccounts, of: map[string]*list.Element{}}
	if opts != nil && opts.MaxBytes > 0 {
		m.maxBytes = opts.MaxBytes
	}
	if opts != nil && opts.MaxAccounts > 0 {
		m.maxAccounts = opts.MaxAccounts
	}
	return m
}

// Account returns store with m in front of it. key names the account among all
// that m is in front of, so two stores must not share an m unless their keys
// differ. It does no I/O and costs next to nothing.
//
// What is returned has the locks that store has, and describes itself as store
// does.
func (m *Memory) Account(key string, store persistence.Versioned) persistence.Versioned {
	return forward.Abilities(&account{store, m, key}, store)
}

func (m *Memory) get(key string) *held {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.of[key]
	if !ok {
		return nil
	}
	m.order.MoveToFront(e)
	return e.Value.(*held)
}

// put holds data, which nobody may change, or nothing if rev is "".
func (m *Memory) put(key, rev string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.of[key]; ok {
		m.remove(e)
	}
	h := &held{key, rev, data}
	if rev == "" || h.size() > m.maxBytes {
		return
	}
	m.of[key] = m.order.PushFront(h)
	m.bytes += h.size()
	for m.bytes > m.maxBytes || len(m.of) > m.maxAccounts {
		m.remove(m.order.Back())
	}
}

func (m *Memory) remove(e *list.Element) {
	h := m.order.Remove(e).(*held)
	delete(m.of, h.key)
	m.bytes -= h.size()
}

// account is one account of a store, with memory in front.
type account struct {
	persistence.Versioned
	memory *Memory
	key    string
}

// Describe implements [persistence.Describer].
func (a *account) Describe() persistence.Description { return persistence.Describe(a.Versioned) }

// Load implements [persistence.Persistence].
func (a *account) Load(ctx context.Context) ([]byte, error) {
	data, _, err := a.LoadRevision(ctx)
	return data, err
}

// LoadRevision implements [persistence.Versioned].
func (a *account) LoadRevision(ctx context.Context) ([]byte, string, error) {
	if h := a.memory.get(a.key); h != nil {
		rev, err := a.Versioned.Revision(ctx)
		if err != nil {
			return nil, "", err
		}
		if rev == h.rev {
			return append([]byte{}, h.data...), rev, nil
		}
	}
	data, rev, err := a.Versioned.LoadRevision(ctx)
	switch {
	case err == nil:
		a.memory.put(a.key, rev, bytes.Clone(data))
	case errors.Is(err, persistence.ErrNotFound):
		a.memory.put(a.key, "", nil)
	}
	return data, rev, err
}

// Save implements [persistence.Persistence].
func (a *account) Save(ctx context.Context, data []byte) error {
	a.memory.put(a.key, "", nil)
	return a.Versioned.Save(ctx, data)
}

// SaveIf implements [persistence.Versioned].
func (a *account) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	now, err := a.Versioned.SaveIf(ctx, data, rev)
	if err == nil {
		a.memory.put(a.key, now, bytes.Clone(data))
	}
	return now, err
}

// Delete implements [persistence.Persistence].
func (a *account) Delete(ctx context.Context) error {
	a.memory.put(a.key, "", nil)
	return a.Versioned.Delete(ctx)
}

// DeleteIf implements [persistence.Versioned].
func (a *account) DeleteIf(ctx context.Context, rev string) error {
	a.memory.put(a.key, "", nil)
	return a.Versioned.DeleteIf(ctx, rev)
}
