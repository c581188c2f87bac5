// Package keyringtest is a keyring for tests: it needs no operating system's,
// and it can be locked, absent, slow, full, limited in size or failing when the
// test wants it to.
//
//	k := keyringtest.New()                  // sound and empty, in memory
//	k := keyringtest.NewLocked()            // what an SSH session finds
//	k := keyringtest.NewAbsent()            // what a container finds
//	k := keyringtest.NewLimited("windows")  // takes 2,560 bytes for an item
//	k := keyringtest.NewDir(t.TempDir())    // shared by several processes
//
// Give it to the code under test where that takes a keyring.Keyring, such as
// the Keyring field of tokenkeep.Config. Its errors are of the classes that the
// real keyring's are.
package keyringtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// ErrCrashed is the error of every call from the one on that [Keyring.CrashAt]
// names.
var ErrCrashed = errors.New("the program has crashed")

// ErrFull is the error of a Set after [Keyring.SetFull].
var ErrFull = errors.New("the keyring is full")

// Keyring is a keyring.Keyring for tests, safe for concurrent use. Calls to it
// are counted from 1.
type Keyring struct {
	items store

	mu      sync.Mutex
	locked  bool
	absent  bool
	full    bool
	limit   func(service, user string) int
	failAt  map[int]error
	crash   int // call at which the program crashes; 0: never
	applied bool
	paused  chan struct{} // closed by resume; nil: not paused
	calls   []Call
}

var _ keyring.Limited = (*Keyring)(nil)

// Item names an item.
type Item struct{ Service, User string }

// A Call is one call that was made.
type Call struct {
	Op string // "get", "set" or "delete"
	Item
}

// New returns an empty keyring in memory.
func New() *Keyring { return &Keyring{items: &memory{items: map[Item]string{}}} }

// NewDir returns a keyring whose items are files in dir, which must be there:
// processes that use the same folder share the items, though not what was set
// with the methods of Keyring. The files are not encrypted. It is for tests
// only.
func NewDir(dir string) *Keyring { return &Keyring{items: folder(dir)} }

// NewLocked returns a keyring that is locked. See [Keyring.SetLocked].
func NewLocked() *Keyring {
	k := New()
	k.SetLocked(true)
	return k
}

// NewAbsent returns a keyring that is not there. See [Keyring.SetAbsent].
func NewAbsent() *Keyring {
	k := New()
	k.SetAbsent(true)
	return k
}

// NewLimited returns a keyring with the size limit of an operating system, a
// value of runtime.GOOS; see keyring.ItemLimit.
func NewLimited(goos string) *Keyring {
	k := New()
	k.SetLimit(func(service, user string) int { return keyring.ItemLimit(goos, service, user) })
	return k
}

// Reopen returns a further keyring on the same items that is sound, as the next
// process finds it. Its calls are counted anew, and the size limit stays.
func (k *Keyring) Reopen() *Keyring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Keyring{items: k.items, limit: k.limit}
}

// SetLocked makes every call fail with ErrKeyringLocked, or no longer.
func (k *Keyring) SetLocked(locked bool) { k.set(func() { k.locked = locked }) }

// SetAbsent makes every call fail with ErrUnavailable, or no longer.
func (k *Keyring) SetAbsent(absent bool) { k.set(func() { k.absent = absent }) }

// SetFull makes every Set fail with [ErrFull], or no longer.
func (k *Keyring) SetFull(full bool) { k.set(func() { k.full = full }) }

// SetLimit sets the size in bytes of the largest secret for an item; beyond it
// Set fails with ErrTooLarge. nil, or a limit of 0, is none.
func (k *Keyring) SetLimit(limit func(service, user string) int) { k.set(func() { k.limit = limit }) }

// FailAt makes the n-th call from now fail with err and do nothing else; 1 is
// the next call.
func (k *Keyring) FailAt(n int, err error) {
	k.set(func() {
		if k.failAt == nil {
			k.failAt = map[int]error{}
		}
		k.failAt[len(k.calls)+n] = err
	})
}

// CrashAt makes the n-th call from now and all after it fail with
// [ErrCrashed], as if the program had died there: before that call was carried
// out or, if applied is set, just after. [Keyring.Reopen] shows what is left.
func (k *Keyring) CrashAt(n int, applied bool) {
	k.set(func() { k.crash, k.applied = len(k.calls)+n, applied })
}

// Pause makes every call wait until resume is called or the call's context
// ends.
func (k *Keyring) Pause() (resume func()) {
	paused := make(chan struct{})
	k.set(func() { k.paused = paused })
	return sync.OnceFunc(func() {
		k.set(func() {
			if k.paused == paused {
				k.paused = nil
			}
		})
		close(paused)
	})
}

// Calls returns the calls that were made so far, also those that failed.
func (k *Keyring) Calls() []Call {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.calls)
}

// Items returns the secrets that are stored, whatever state the keyring is in.
func (k *Keyring) Items() map[Item]string {
	all, err := k.items.all()
	if err != nil {
		panic(fmt.Sprintf("keyringtest: %v", err))
	}
	return all
}

func (k *Keyring) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// Get implements keyring.Keyring.
func (k *Keyring) Get(ctx context.Context, service, user string) (secret string, err error) {
	err = k.call(ctx, "get", Item{service, user}, func(i Item) (err error) {
		secret, err = k.items.get(i)
		return err
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Set implements keyring.Keyring.
func (k *Keyring) Set(ctx context.Context, service, user, secret string) error {
	return k.call(ctx, "set", Item{service, user}, func(i Item) error {
		k.mu.Lock()
		full, limit := k.full, k.itemLimit(service, user)
		k.mu.Unlock()
		if full {
			return ErrFull
		}
		if limit > 0 && len(secret) > limit {
			return fmt.Errorf("%w: %d bytes, and this keyring takes %d for an item of this name", persistence.ErrTooLarge, len(secret), limit)
		}
		return k.items.set(i, secret)
	})
}

// Delete implements keyring.Keyring.
func (k *Keyring) Delete(ctx context.Context, service, user string) error {
	return k.call(ctx, "delete", Item{service, user}, k.items.delete)
}

// ItemLimit implements keyring.Limited.
func (k *Keyring) ItemLimit(service, user string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.itemLimit(service, user)
}

func (k *Keyring) itemLimit(service, user string) int {
	if k.limit == nil {
		return 0
	}
	return k.limit(service, user)
}

// call is what every call goes through.
func (k *Keyring) call(ctx context.Context, op string, item Item, do func(Item) error) error {
	k.mu.Lock()
	k.calls = append(k.calls, Call{op, item})
	n := len(k.calls)
	paused := k.paused
	fail := k.failAt[n]
	crashed := k.crash > 0 && n >= k.crash
	var remedy string
	switch {
	case fail != nil:
	case crashed:
		fail = ErrCrashed
	case k.absent:
		fail, remedy = persistence.ErrUnavailable, "Call SetAbsent(false)."
	case k.locked:
		fail, remedy = persistence.ErrKeyringLocked, "Call SetLocked(false)."
	}
	apply := crashed && n == k.crash && k.applied
	k.mu.Unlock()

	if paused != nil {
		select {
		case <-paused:
		case <-ctx.Done():
		}
	}
	err := ctx.Err()
	if err == nil && (fail == nil || apply) {
		err = do(item)
	}
	if err == nil || apply {
		err = fail
	}
	if err == nil {
		return nil
	}
	return &persistence.Error{Op: op, Backend: "keyring", Location: item.Service + "/" + item.User, Err: err, Remedy: remedy}
}

// store is where the items are.
type store interface {
	get(Item) (string, error)
	set(Item, string) error
	delete(Item) error
	all() (map[Item]string, error)
}

type memory struct {
	mu    sync.Mutex
	items map[Item]string
}

func (m *memory) get(i Item) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	secret, ok := m.items[i]
	if !ok {
		return "", persistence.ErrNotFound
	}
	return secret, nil
}

func (m *memory) set(i Item, secret string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items[i] = secret
	return nil
}

func (m *memory) delete(i Item) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.items[i]; !ok {
		return persistence.ErrNotFound
	}
	delete(m.items, i)
	return nil
}

func (m *memory) all() (map[Item]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.items), nil
}
