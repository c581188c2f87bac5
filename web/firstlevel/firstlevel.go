// Package firstlevel keeps token caches of a store in this process's memory, in
// front of the store, and uses none before the store has said that it is current.
//
//	memory := firstlevel.New(nil) // one for the program
//	cache, err := persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) {
//		return memory.Account(key, store.Account(key)), nil
//	})
//
// A load asks the store for the account's revision, a few bytes, and for the
// data only if memory does not have that revision. So another server's write is
// never missed, and a load that finds its data in memory costs one small round trip.
// That gains much if the store is far away or the data is large, and little if a round
// trip costs more than the data that comes with it, as with a small cache in a Redis
// nearby.
//
// While the store does not answer, every load fails, also for users whose token is
// still good. [Options].MaxStale changes that.
//
// What is in memory is as it was loaded. In front of package sealed's accounts
// it is in plain text, and hits are not decrypted again; between package sealed and the
// store it is sealed, as in the store.
package firstlevel

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

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

	// MaxStale lets a load answer from memory while the store does not answer
	// (persistence.ErrUnavailable, or the deadline passed), for this long after
	// the store last said that the data is current. 0 means never.
	//
	// So users whose account this process has loaded a moment ago notice nothing of
	// an outage, as long as their access token is good. But during the outage this
	// process does not learn that a user has signed out at another server, and still
	// answers for up to MaxStale. A user who signs out at this process is signed out
	// here at once, also if the store does not answer.
	//
	// Saves still need the store. persistence.Partitioned keeps what it could not
	// save, and its Flush saves it later.
	MaxStale time.Duration
}

// Memory holds the data of the accounts that were used last, within bounds.
// It is safe for concurrent use.
type Memory struct {
	maxBytes, maxAccounts int
	maxStale              time.Duration
	now                   func() time.Time

	mu    sync.Mutex
	drops uint64                   // how often an account was dropped, for a delete or a save
	of    map[string]*list.Element // of *held
	order list.List                // the one used last first
	bytes int
}

// held is what is in memory of one account. Only current is ever changed, under
// the Memory's lock.
type held struct {
	key, rev string
	data     []byte
	current  time.Time // when the store last said so
}

func (h *held) size() int { return len(h.key) + len(h.rev) + len(h.data) }

// New returns a Memory with nothing in it. A nil opts means the defaults.
func New(opts *Options) *Memory {
	m := &Memory{maxBytes: DefaultMaxBytes, maxAccounts: DefaultMaxAccounts, now: time.Now, of: map[string]*list.Element{}}
	if opts != nil && opts.MaxBytes > 0 {
		m.maxBytes = opts.MaxBytes
	}
	if opts != nil && opts.MaxAccounts > 0 {
		m.maxAccounts = opts.MaxAccounts
	}
	if opts != nil {
		m.maxStale = max(opts.MaxStale, 0)
	}
	return m
}

// Account returns store with m in front of it. key names the account among all
// that m is in front of, so two stores must not share an m unless their keys
// differ. It does no I/O and costs next to nothing.
//
// What Account returns has the locks, the leases and the SetAside that store has, and
// describes itself as store does.
func (m *Memory) Account(key string, store persistence.Versioned) persistence.Versioned {
	a := &account{store, m, key}
	return forward.Abilities(a, store, a.setAside)
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

// dropped returns how often accounts were dropped so far. A caller asks before it
// asks the store, and gives the answer to put.
func (m *Memory) dropped() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.drops
}

// drop forgets an account. It is called before and after a delete or a save.
func (m *Memory) drop(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drops++
	if e, ok := m.of[key]; ok {
		m.remove(e)
	}
}

// put replaces what is kept for a key by data, which nobody may change, or by nothing if
// rev is "". If anything was dropped since the caller began, data may be from before a
// sign-out, and nothing is kept.
func (m *Memory) put(key, rev string, data []byte, began uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.of[key]; ok {
		m.remove(e)
	}
	if m.drops != began {
		return
	}
	h := &held{key, rev, data, m.now()}
	if rev == "" || h.size() > m.maxBytes {
		return
	}
	m.of[key] = m.order.PushFront(h)
	m.bytes += h.size()
	for m.bytes > m.maxBytes || len(m.of) > m.maxAccounts {
		m.remove(m.order.Back())
	}
}

// check notes that the store has just named the current revision of a key. Data of
// another revision is forgotten, so that stale does not return it.
func (m *Memory) check(key, rev string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.of[key]
	if !ok {
		return
	}
	if h := e.Value.(*held); h.rev == rev {
		h.current = m.now()
	} else {
		m.remove(e)
	}
}

// stale returns what may be answered for a key although the store has failed with err,
// or nil.
func (m *Memory) stale(key string, err error) *held {
	if m.maxStale == 0 || !errors.Is(err, persistence.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	h := m.get(key)
	if h == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if age := m.now().Sub(h.current); age < 0 || age > m.maxStale {
		return nil
	}
	return h
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

// Revision implements [persistence.Versioned].
func (a *account) Revision(ctx context.Context) (string, error) {
	rev, err := a.Versioned.Revision(ctx)
	if err != nil {
		if h := a.memory.stale(a.key, err); h != nil {
			return h.rev, nil
		}
		return rev, err
	}
	a.memory.check(a.key, rev)
	return rev, nil
}

// LoadRevision implements [persistence.Versioned].
func (a *account) LoadRevision(ctx context.Context) ([]byte, string, error) {
	began := a.memory.dropped()
	if h := a.memory.get(a.key); h != nil {
		rev, err := a.Versioned.Revision(ctx)
		if err != nil {
			if h := a.memory.stale(a.key, err); h != nil {
				return append([]byte{}, h.data...), h.rev, nil
			}
			return nil, "", err
		}
		if a.memory.check(a.key, rev); rev == h.rev {
			return append([]byte{}, h.data...), rev, nil
		}
	}
	data, rev, err := a.Versioned.LoadRevision(ctx)
	switch {
	case err == nil:
		a.memory.put(a.key, rev, bytes.Clone(data), began)
	case errors.Is(err, persistence.ErrNotFound):
		a.memory.put(a.key, "", nil, began)
	}
	return data, rev, err
}

// Save implements [persistence.Persistence].
func (a *account) Save(ctx context.Context, data []byte) error {
	a.memory.drop(a.key)
	defer a.memory.drop(a.key)
	return a.Versioned.Save(ctx, data)
}

// SaveIf implements [persistence.Versioned].
func (a *account) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	began := a.memory.dropped()
	now, err := a.Versioned.SaveIf(ctx, data, rev)
	if err == nil {
		a.memory.put(a.key, now, bytes.Clone(data), began)
	}
	return now, err
}

// Delete implements [persistence.Persistence].
func (a *account) Delete(ctx context.Context) error {
	a.memory.drop(a.key)
	defer a.memory.drop(a.key)
	return a.Versioned.Delete(ctx)
}

// DeleteIf implements [persistence.Versioned].
func (a *account) DeleteIf(ctx context.Context, rev string) error {
	a.memory.drop(a.key)
	defer a.memory.drop(a.key)
	return a.Versioned.DeleteIf(ctx, rev)
}

// setAside is that of the store, which is a SetAsider.
func (a *account) setAside(ctx context.Context, rev string) (place string, err error) {
	a.memory.drop(a.key)
	defer a.memory.drop(a.key)
	return a.Versioned.(persistence.SetAsider).SetAside(ctx, rev)
}
