// Package keyringtest is a keyring for tests. It does not use the operating
// system's, and a test can make it locked, absent, slow, full, limited in size
// or failing.
//
//	k := keyringtest.New()           // works and is empty, in memory
//	k := keyringtest.NewLocked()     // what an SSH session finds
//	k := keyringtest.NewAbsent()     // what a container finds
//	k := keyringtest.NewHanging(d)   // answers no call, and gives up after d
//	k := keyringtest.NewFailing(err) // fails with err
//	k := keyringtest.NewVanishing(3) // its service ends after three calls
//	k := keyringtest.NewRestarting(3) // the same, and then a new, locked one starts
//	k := keyringtest.NewFull()       // takes no more items
//	k := keyringtest.NewWindows()    // takes 2,560 bytes for an item
//	k := keyringtest.NewMacOS()      // takes about 3,000 bytes, names included
//	k := keyringtest.NewKernel()     // takes 20,000 bytes for all items
//	k := keyringtest.NewDir(dir)     // shared by several processes
//
// A test can take the keyring of a platform and then change its state:
// k.SetLocked(true), k.VanishAfter(3), k.Clear().
//
// Give it to the code under test as its keyring.Keyring, such as the Keyring
// field of tokenkeep.Config. Its errors have the same classes and situations as
// those of the real keyring, and it refuses the same names of items.
//
// The test authority for programs that sign in is package
// [github.com/tokenkeep/tokenkeep/entratest]. The program in examples/testing uses
// both.
package keyringtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// ErrCrashed is the error of the call that [Keyring.CrashAt] names and of all
// calls after it.
var ErrCrashed = errors.New("the program has crashed")

// Keyring is a keyring.Keyring for tests, safe for concurrent use. It prints as
// a description, without its items.
type Keyring struct {
	items store

	mu      sync.Mutex
	locked  bool
	absent  bool
	full    bool
	limit   func(service, user string) int
	quota   int    // bytes of all items; 0: none
	source  string // the word for the header of a file with a key in it
	hang    time.Duration
	err     error // of every call; nil: none
	vanish  int   // the last call before the service ends
	ends    ending
	failAt  map[int]error
	crash   int // call at which the program crashes; 0: never
	applied bool
	paused  chan struct{} // closed by resume; nil: not paused
	calls   []Call        // counted from 1
}

// ending is what comes after the service's end.
type ending int

const (
	noEnd ending = iota
	nothing
	anotherLocked
)

var (
	_ keyring.Limited = (*Keyring)(nil)
	_ keyring.Lister  = (*Keyring)(nil)
)

// Item names an item.
type Item struct{ Service, User string }

// A Call is one call that was made.
type Call struct {
	Op string // "get", "set", "delete" or "list"
	Item
}

// New returns an empty keyring in memory.
func New() *Keyring { return &Keyring{items: &memory{items: map[Item]string{}}} }

// NewDir returns a keyring whose items are files in dir, which must exist.
// Processes that use the same folder share the items, but not what the methods
// of Keyring have set. The files are not encrypted: never use it outside tests.
func NewDir(dir string) *Keyring { return &Keyring{items: folder(dir)} }

// NewLocked returns a keyring that is locked. See [Keyring.SetLocked].
func NewLocked() *Keyring {
	k := New()
	k.SetLocked(true)
	return k
}

// NewAbsent returns a keyring that is not available. See [Keyring.SetAbsent].
func NewAbsent() *Keyring {
	k := New()
	k.SetAbsent(true)
	return k
}

// NewHanging returns a keyring that answers no call, like one that shows a dialog
// that nobody sees, or whose service is stopped. As with the real one, a call
// ends with its context, or with keyring.NoAnswer after the given time (10
// seconds there).
func NewHanging(after time.Duration) *Keyring {
	k := New()
	k.hang = after
	return k
}

// NewFailing returns a keyring whose calls fail with err. See [Keyring.SetError].
func NewFailing(err error) *Keyring {
	k := New()
	k.SetError(err)
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
func NewWindows() *Keyring {
	k := New()
	k.SetLimit(func(string, string) int { return 2560 })
	return k
}

// NewMacOS returns a keyring with the limit of macOS' Keychain as this module
// uses it: about 3,000 bytes for an item, names included.
func NewMacOS() *Keyring {
	k := New()
	k.SetLimit(macOSLimit)
	return k
}

// macOSLimit is ItemLimit of keyring.System on macOS, where each quote or
// backslash in a name takes two bytes; a test compares the two.
func macOSLimit(service, user string) int {
	quoted := 0
	for _, name := range []string{service, user} {
		quoted += len(name) + strings.Count(name, `"`) + strings.Count(name, `\`)
	}
	return max((4022-quoted)/4*3, 1)
}

// NewKernel returns a keyring that stands for keyring.Kernel, with the limits that
// it has for a user who is not root: 32,766 bytes for an item, 200 items, and 20,000
// bytes for all of them, names included. [Keyring.Clear] is three days without use.
// To tokenkeep.Open it is the kernel's keyring, as Config.Kernel or as
// Config.Keyring.
func NewKernel() *Keyring {
	k := New()
	k.SetLimit(func(string, string) int { return 32766 })
	k.quota, k.source = 20_000, layout.Kernel
	return k
}

// Reopen returns another keyring with the same items and size limits, as the next
// process finds it: it works, and counts its calls from 1.
func (k *Keyring) Reopen() *Keyring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Keyring{items: k.items, limit: k.limit, quota: k.quota, source: k.source}
}

// SetError makes every call fail with err, for instance a keyring.Situation; nil
// ends that. States such as locked or absent do not count while it is set.
func (k *Keyring) SetError(err error) { k.set(func() { k.err = err }) }

// SetLocked makes every call fail with keyring.Locked, or ends that.
func (k *Keyring) SetLocked(locked bool) { k.set(func() { k.locked = locked }) }

// SetAbsent makes every call fail with keyring.NoService, or ends that.
func (k *Keyring) SetAbsent(absent bool) { k.set(func() { k.absent = absent }) }

// SetFull makes every Set fail with keyring.Full, or ends that.
func (k *Keyring) SetFull(full bool) { k.set(func() { k.full = full }) }

// SetLimit sets the size in bytes of the largest secret for an item; beyond it
// Set fails with ErrTooLarge. nil or a limit of 0 means no limit.
func (k *Keyring) SetLimit(limit func(service, user string) int) { k.set(func() { k.limit = limit }) }

// VanishAfter makes all calls after the next n fail with keyring.NoService, as if
// the keyring's service were killed and nothing started it again.
func (k *Keyring) VanishAfter(n int) { k.set(func() { k.vanish, k.ends = len(k.calls)+n, nothing }) }

// RestartAfter makes the call after the next n fail with keyring.NoService and
// all later ones with keyring.Locked, as if the keyring's service were killed and
// the desktop started a new one that nobody has unlocked yet. SetLocked(false)
// unlocks it.
func (k *Keyring) RestartAfter(n int) {
	k.set(func() { k.vanish, k.ends = len(k.calls)+n, anotherLocked })
}

// Clear removes every item, in any state of the keyring, as if its user had reset
// it or, for the kernel's, nobody had used it for three days. A file whose key was
// in it then fails with ErrKeyMissing.
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
// out or, if applied is true, just after. Use [Keyring.Reopen] to see what is
// left.
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

// Calls returns the calls made so far, including those that failed.
func (k *Keyring) Calls() []Call {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.calls)
}

// Items returns the stored secrets, in any state of the keyring.
func (k *Keyring) Items() map[Item]string {
	all, err := k.items.all()
	if err != nil {
		panic(fmt.Sprintf("keyringtest: %v", err))
	}
	return all
}

// Format writes a description, without items, for every verb.
func (k *Keyring) Format(f fmt.State, _ rune) { io.WriteString(f, description) }

// LogValue returns a description, without items.
func (k *Keyring) LogValue() slog.Value { return slog.StringValue(description) }

const description = "keyringtest: a keyring for tests"

func (k *Keyring) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// Get returns the secret of an item.
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

// Set stores the secret of an item.
func (k *Keyring) Set(ctx context.Context, service, user, secret string) error {
	return k.call(ctx, "set", Item{service, user}, func(i Item) error {
		k.mu.Lock()
		full, limit, quota := k.full, k.itemLimit(service, user), k.quota
		k.mu.Unlock()
		if full {
			return keyring.Full
		}
		if limit > 0 && len(secret) > limit {
			return fmt.Errorf("%w: %d bytes; this keyring takes %d for an item of this name", persistence.ErrTooLarge, len(secret), limit)
		}
		if quota > 0 && !k.fits(i, secret, quota) {
			return keyring.Full
		}
		return k.items.set(i, secret)
	})
}

// fits reports whether an item is within the kernel's quota, roughly. The quota
// includes the names.
func (k *Keyring) fits(item Item, secret string, quota int) bool {
	items := k.Items()
	items[item] = secret
	size := 0
	for i, s := range items {
		size += len(i.Service) + len(i.User) + len(s) + len(`tokenkeep "" ""`) + 2
	}
	return len(items) <= 200 && size <= quota
}

// Delete deletes an item.
func (k *Keyring) Delete(ctx context.Context, service, user string) error {
	return k.call(ctx, "delete", Item{service, user}, k.items.delete)
}

// KeySource returns "kernel" for a keyring of [NewKernel], else "keyring": what
// stands in the header of a file whose key it has.
func (k *Keyring) KeySource() string { return cmp.Or(k.source, layout.Keyring) }

// List lists the items of a service, of which [Call] then has no user.
func (k *Keyring) List(ctx context.Context, service string) (users []string, err error) {
	err = k.call(ctx, "list", Item{service, ""}, func(Item) error {
		all, err := k.items.all()
		for i := range all {
			if i.Service == service {
				users = append(users, i.User)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(users)
	return users, nil
}

// ItemLimit returns the limit that [Keyring.SetLimit] has set.
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
	if err := checkName(op, item); err != nil { // in any state, as keyring.System
		k.mu.Unlock()
		return failed(op, item, err, persistence.Remedy(err))
	}
	n := len(k.calls)
	paused, hang := k.paused, k.hang
	fail := k.failAt[n]
	crashed := k.crash > 0 && n >= k.crash
	var remedy string
	switch {
	case fail != nil:
	case crashed:
		fail = ErrCrashed
	case k.err != nil:
		fail = k.err
	case k.ends != noEnd && n > k.vanish:
		fail, remedy = keyring.NoService, "Start the keyring's service."
		if k.ends == anotherLocked {
			k.ends, k.locked = noEnd, true
		}
	case k.absent:
		fail, remedy = keyring.NoService, "Call SetAbsent(false)."
	case k.locked:
		fail, remedy = keyring.Locked, "Call SetLocked(false)."
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
			fail = fmt.Errorf("%w (%v): %w", keyring.NoAnswer, hang, context.DeadlineExceeded)
			remedy = "See whether the keyring shows a dialog."
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
	if remedy == "" {
		remedy = persistence.Remedy(err)
	}
	return failed(op, item, err, remedy)
}

// failed returns the error of a call.
func failed(op string, i Item, err error, remedy string) error {
	return &persistence.Error{Op: op, Backend: "keyring", Location: i.Service + "/" + i.User, Err: persistence.Cause(err), Remedy: remedy}
}

// checkName refuses the names that keyring.System refuses.
func checkName(op string, item Item) error {
	if op == "list" {
		return layout.CheckItem(item.Service, "any")
	}
	return layout.CheckItem(item.Service, item.User)
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
