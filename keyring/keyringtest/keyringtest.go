// Package keyringtest is a keyring for tests: it needs no operating system's,
// and it can be locked, absent, slow, full, limited in size or failing when the
// test wants it to.
//
//	k := keyringtest.New()           // sound and empty, in memory
//	k := keyringtest.NewLocked()     // what an SSH session finds
//	k := keyringtest.NewAbsent()     // what a container finds
//	k := keyringtest.NewHanging(d)   // asks somebody who is not there, and gives up after d
//	k := keyringtest.NewVanishing(3) // its service ends after three calls
//	k := keyringtest.NewRestarting(3) // its service ends then, too, and a new one is locked
//	k := keyringtest.NewFull()       // takes no more items
//	k := keyringtest.NewWindows()    // takes 2,560 bytes for an item
//	k := keyringtest.NewMacOS()      // takes about 3,000 bytes, names included
//	k := keyringtest.NewKernel()     // takes 20,000 bytes for all items
//	k := keyringtest.NewDir(dir)     // shared by several processes
//
// All of them are the same otherwise, so that a test can take the one of a
// platform and change its state: k.SetLocked(true), k.VanishAfter(3), k.Clear().
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
	"time"

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
	quota   int // bytes of all items; 0: none
	hang    time.Duration
	vanish  int // the last call before the service ends
	ends    ending
	failAt  map[int]error
	crash   int // call at which the program crashes; 0: never
	applied bool
	paused  chan struct{} // closed by resume; nil: not paused
	calls   []Call
}

// ending is what comes after the service's end.
type ending int

const (
	noEnd ending = iota
	nothing
	anotherLocked
)

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

// NewHanging returns a keyring that answers no call: one with a dialog that
// nobody sees, or whose service has stopped. As with the real one a call ends
// with its context, or with ErrUnavailable after a time, which is 10 seconds
// there.
func NewHanging(after time.Duration) *Keyring {
	k := New()
	k.hang = after
	return k
}

// NewVanishing returns a keyring whose service ends after n calls. See
// [Keyring.VanishAfter].
func NewVanishing(n int) *Keyring {
	k := New()
	k.VanishAfter(n)
	return k
}

// NewRestarting returns a keyring whose service ends after n calls, and is then
// locked. See [Keyring.RestartAfter].
func NewRestarting(n int) *Keyring {
	k := New()
	k.RestartAfter(n)
	return k
}

// NewFull returns a keyring that takes no item. See [Keyring.SetFull].
func NewFull() *Keyring {
	k := New()
	k.SetFull(true)
	return k
}

// NewWindows returns a keyring with the limit of Windows' Credential Manager:
// 2,560 bytes for an item.
func NewWindows() *Keyring { return NewLimited("windows") }

// NewMacOS returns a keyring with the limit of macOS' Keychain, as reached
// through this module: about 3,000 bytes for an item, names included.
func NewMacOS() *Keyring { return NewLimited("darwin") }

// NewKernel returns a keyring with the limits of keyring.Kernel for a user who
// is not root: 32,766 bytes for an item, 200 items, and 20,000 bytes for all of
// them, names included. [Keyring.Clear] is the reboot.
func NewKernel() *Keyring {
	k := New()
	k.SetLimit(func(string, string) int { return 32766 })
	k.quota = 20_000
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
// process finds it. Its calls are counted anew, and the limits of size
// stay.
func (k *Keyring) Reopen() *Keyring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Keyring{items: k.items, limit: k.limit, quota: k.quota}
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

// VanishAfter makes all calls after the next n fail with ErrUnavailable, as when
// the keyring's service is killed and nothing starts it again.
func (k *Keyring) VanishAfter(n int) { k.set(func() { k.vanish, k.ends = len(k.calls)+n, nothing }) }

// RestartAfter makes the call after the next n fail with ErrUnavailable and all
// later ones with ErrKeyringLocked, as when the keyring's service is killed and
// the desktop starts a new one, which nobody has unlocked yet. SetLocked(false)
// unlocks it.
func (k *Keyring) RestartAfter(n int) {
	k.set(func() { k.vanish, k.ends = len(k.calls)+n, anotherLocked })
}

// Clear removes every item, whatever state the keyring is in: its user has reset
// it, or the computer, whose kernel kept it, has started anew. Then what was
// encrypted with a key in it meets ErrKeyMissing.
func (k *Keyring) Clear() {
	for i := range k.Items() {
		if err := k.items.delete(i); err != nil && !errors.Is(err, persistence.ErrNotFound) {
			panic(fmt.Sprintf("keyringtest: %v", err))
		}
	}
}

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
		full, limit, quota := k.full, k.itemLimit(service, user), k.quota
		k.mu.Unlock()
		if full {
			return ErrFull
		}
		if limit > 0 && len(secret) > limit {
			return fmt.Errorf("%w: %d bytes, and this keyring takes %d for an item of this name", persistence.ErrTooLarge, len(secret), limit)
		}
		if quota > 0 && !k.fits(i, secret, quota) {
			return fmt.Errorf("%w: the quota is used up", persistence.ErrTooLarge)
		}
		return k.items.set(i, secret)
	})
}

// fits reports whether an item is within the kernel's quota, roughly: it counts
// the names, too.
func (k *Keyring) fits(item Item, secret string, quota int) bool {
	items := k.Items()
	items[item] = secret
	size := 0
	for i, s := range items {
		size += len(i.Service) + len(i.User) + len(s) + len(`tokenkeep "" ""`) + 2
	}
	return len(items) <= 200 && size <= quota
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
	paused, hang := k.paused, k.hang
	fail := k.failAt[n]
	crashed := k.crash > 0 && n >= k.crash
	var remedy string
	switch {
	case fail != nil:
	case crashed:
		fail = ErrCrashed
	case k.ends != noEnd && n > k.vanish:
		fail, remedy = persistence.ErrUnavailable, "Start the keyring's service."
		if k.ends == anotherLocked {
			k.ends, k.locked = noEnd, true
		}
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
	if hang > 0 {
		timer := time.NewTimer(hang)
		defer timer.Stop()
		select {
		case <-timer.C:
			fail = fmt.Errorf("%w: it did not answer within %v: %w", persistence.ErrUnavailable, hang, context.DeadlineExceeded)
			remedy = "Look whether the keyring is showing a dialog."
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
