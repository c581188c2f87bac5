// Package persistencetest tests implementations of [persistence.Persistence],
// and helps to test programs that use them.
//
// [Run] is a conformance suite. It checks a backend against every rule that
// the interfaces of package persistence state: those of Persistence always,
// those of Versioned, Locker, NamedLocker, Leaser and SetAsider where the backend is
// one. A test of a backend needs a few lines:
//
//	var _ persistence.Versioned = (*Vault)(nil) // the suite tests the abilities it finds
//
//	func TestVault(t *testing.T) {
//		persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
//			path := filepath.Join(t.TempDir(), "cache")
//			return func() (persistence.Persistence, error) { return NewVault(path) }
//		}, nil)
//	}
//
// Each rule is a subtest on storage of its own, and prints itself in words
// when it fails. Run it with the race detector: that is how unsafe concurrent
// use shows.
//
// What the suite cannot test in one process, a backend tests for itself: that
// a killed process leaves the old value or the new one, that its lock is free
// at once, that a Save survives a power cut.
//
// [RunWrapper] checks what wraps a backend: that it hides none of its abilities.
//
// [Faulty] makes calls fail on demand, and [Intercept] puts any function
// around them: to count calls, to hold one back, to change its error.
//
// The package needs nothing but the standard library and package persistence.
package persistencetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Open opens one storage, as a process does that starts: it returns a new
// Persistence on the data that earlier ones have saved. For a storage in
// memory, which dies with its process, it may return the same value each time.
type Open func() (persistence.Persistence, error)

// Options adapts the suite to a backend. The zero value, or nil, is right for
// most.
type Options struct {
	// MaxSize is the largest size of data, in bytes, that the backend takes. The
	// suite then checks that it takes that much, and refuses one byte more with
	// ErrTooLarge. At least 256. 0 means that the backend takes 1 MiB, and that
	// its limit, if it has one, is not tested.
	MaxSize int
	// Damage damages what is stored, as a disk or another program may, in a way that
	// the backend is certain to notice. p is open on the storage, and Describe says
	// where that is. The suite then checks that the backend fails with ErrCorrupt.
	// nil means that the backend cannot notice damage, or that this is not tested.
	Damage func(t testing.TB, p persistence.Persistence)
	// Patience is how long the suite waits for a call to return before it
	// fails the test. It decides only when to give up, never whether a call was
	// fast enough. 0 means one minute.
	Patience time.Duration
}

// Run checks a backend against the rules of package persistence, in one subtest
// for each rule. fresh makes a storage that holds nothing, and returns the function
// that opens it; Run calls both several times. fresh may use t.TempDir and
// t.Cleanup. A nil opts means the defaults.
func Run(t *testing.T, fresh func(t *testing.T) Open, opts *Options) {
	t.Helper()
	if opts == nil {
		opts = new(Options)
	}
	if opts.MaxSize != 0 && opts.MaxSize < 256 {
		t.Fatalf("persistencetest: MaxSize is %d, and must be 0 or at least 256", opts.MaxSize)
	}
	p, err := fresh(t)()
	if err != nil {
		t.Fatalf("opening a fresh storage: %v", err)
	}
	has := abilitiesOf(p)
	t.Logf("testing %T as %v", p, has)
	for _, r := range rules {
		if r.applies(has, opts) {
			t.Run(r.name, func(t *testing.T) {
				r.check(&suite{t, func() Open { return fresh(t) }, *opts, has}, t)
			})
		}
	}
}

// A rule is one promise of the interfaces, and the check of it.
type rule struct {
	name  string
	text  string  // the rule in words, printed when it is broken
	needs ability // it applies only to backends with these abilities
	test  func(s *suite)
}

func (r rule) applies(has ability, opts *Options) bool {
	if opts.MaxSize > 0 {
		has |= limit
	}
	if opts.Damage != nil {
		has |= damage
	}
	return r.needs&^has == 0
}

func (r rule) check(s *suite, t testing.TB) {
	defer func() {
		if t.Failed() {
			t.Logf("the rule: %s", r.text)
		}
	}()
	r.test(s)
}

// ability is a set of what a backend can do beyond Persistence.
type ability int

const (
	versioned ability = 1 << iota
	locker
	namedLocker
	describer
	leaser
	setAsider
	// Not abilities of the value:
	limit  // Options.MaxSize is set
	damage // Options.Damage is set
)

func abilitiesOf(p persistence.Persistence) (has ability) {
	if _, ok := p.(persistence.Versioned); ok {
		has |= versioned
	}
	if _, ok := p.(persistence.Locker); ok {
		has |= locker
	}
	if _, ok := p.(persistence.NamedLocker); ok {
		has |= namedLocker
	}
	if _, ok := p.(persistence.Describer); ok {
		has |= describer
	}
	if _, ok := p.(persistence.Leaser); ok {
		has |= leaser
	}
	if _, ok := p.(persistence.SetAsider); ok {
		has |= setAsider
	}
	return has
}

func (a ability) String() string {
	s := "a Persistence"
	for i, name := range []string{"Versioned", "Locker", "NamedLocker", "Describer", "Leaser", "SetAsider"} {
		if a&(1<<i) != 0 {
			s += ", " + name
		}
	}
	return s
}

// suite is what a rule works with: the test, and storages to test.
type suite struct {
	testing.TB
	fresh func() Open
	opts  Options
	has   ability
}

func (s *suite) patience() time.Duration {
	if s.opts.Patience > 0 {
		return s.opts.Patience
	}
	return time.Minute
}

// max is the largest data that the backend must take.
func (s *suite) max() int {
	if s.opts.MaxSize > 0 {
		return s.opts.MaxSize
	}
	return 1 << 20
}

// ctx returns a context with a deadline, so that a backend that obeys its
// context can say itself why it hangs.
func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), s.patience())
	s.Cleanup(cancel)
	return ctx
}

// briefly returns a context that ends soon. It is for calls that cannot
// succeed, however long they wait.
func (s *suite) briefly() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), 50*time.Millisecond)
	s.Cleanup(cancel)
	return ctx
}

// within runs f and ends the test if f hangs.
func (s *suite) within(what string, f func()) {
	s.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	// A little longer than ctx, so that an obedient backend reports first.
	timer := time.NewTimer(s.patience() + s.patience()/4)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.Fatalf("%s hangs: it has not returned in %v", what, s.patience()+s.patience()/4)
	}
}

// one returns an instance on a fresh storage.
func (s *suite) one() *instance {
	s.Helper()
	return s.many(1)[0]
}

// two returns two instances on one fresh storage.
func (s *suite) two() (a, b *instance) {
	s.Helper()
	is := s.many(2)
	return is[0], is[1]
}

// many returns n instances on one fresh storage.
func (s *suite) many(n int) []*instance {
	s.Helper()
	return s.instances(s.fresh(), n)
}

func (s *suite) instances(open Open, n int) []*instance {
	s.Helper()
	var is []*instance
	for range n {
		var p persistence.Persistence
		var err error
		s.within("opening the storage", func() { p, err = open() })
		if err != nil {
			s.Fatalf("opening the storage: %v", err)
		}
		if got := abilitiesOf(p); got != s.has {
			s.Fatalf("this instance is %v, the first was %v", got, s.has)
		}
		is = append(is, &instance{s, p})
	}
	return is
}

// instance calls one Persistence. Its methods end the test if a call hangs.
type instance struct {
	s *suite
	p persistence.Persistence
}

func (i *instance) versioned() persistence.Versioned { return i.p.(persistence.Versioned) }

func (i *instance) load(ctx context.Context) (data []byte, err error) {
	i.s.Helper()
	i.s.within("Load", func() { data, err = i.p.Load(ctx) })
	return data, err
}

func (i *instance) save(ctx context.Context, data []byte) (err error) {
	i.s.Helper()
	i.s.within("Save", func() { err = i.p.Save(ctx, data) })
	return err
}

func (i *instance) delete(ctx context.Context) (err error) {
	i.s.Helper()
	i.s.within("Delete", func() { err = i.p.Delete(ctx) })
	return err
}

func (i *instance) revision(ctx context.Context) (rev string, err error) {
	i.s.Helper()
	i.s.within("Revision", func() { rev, err = i.versioned().Revision(ctx) })
	return rev, err
}

func (i *instance) loadRevision(ctx context.Context) (data []byte, rev string, err error) {
	i.s.Helper()
	i.s.within("LoadRevision", func() { data, rev, err = i.versioned().LoadRevision(ctx) })
	return data, rev, err
}

func (i *instance) saveIf(ctx context.Context, data []byte, rev string) (now string, err error) {
	i.s.Helper()
	i.s.within("SaveIf", func() { now, err = i.versioned().SaveIf(ctx, data, rev) })
	return now, err
}

func (i *instance) deleteIf(ctx context.Context, rev string) (err error) {
	i.s.Helper()
	i.s.within("DeleteIf", func() { err = i.versioned().DeleteIf(ctx, rev) })
	return err
}

func (i *instance) setAside(ctx context.Context, rev string) (err error) {
	i.s.Helper()
	i.s.within("SetAside", func() { _, err = i.p.(persistence.SetAsider).SetAside(ctx, rev) })
	return err
}

func (i *instance) lock(ctx context.Context) (unlock func() error, err error) {
	i.s.Helper()
	i.s.within("Lock", func() { unlock, err = i.p.(persistence.Locker).Lock(ctx) })
	return unlock, err
}

func (i *instance) lockName(ctx context.Context, name string) (unlock func() error, err error) {
	i.s.Helper()
	i.s.within("LockName", func() { unlock, err = i.p.(persistence.NamedLocker).LockName(ctx, name) })
	return unlock, err
}

// The must methods end the test if the call fails.

func (i *instance) mustSave(data []byte) {
	i.s.Helper()
	if err := i.save(i.s.ctx(), data); err != nil {
		i.s.Fatalf("Save of %d bytes: %v", len(data), err)
	}
}

func (i *instance) mustDelete() {
	i.s.Helper()
	if err := i.delete(i.s.ctx()); err != nil {
		i.s.Fatalf("Delete: %v", err)
	}
}

func (i *instance) mustRevision() string {
	i.s.Helper()
	rev, err := i.revision(i.s.ctx())
	if err != nil {
		i.s.Fatalf("Revision: %v", err)
	}
	return rev
}

func (i *instance) mustSaveIf(data []byte, rev string) string {
	i.s.Helper()
	now, err := i.saveIf(i.s.ctx(), data, rev)
	if err != nil {
		i.s.Fatalf("SaveIf of the revision that is stored: %v", err)
	}
	return now
}

func (i *instance) mustUnlock(unlock func() error) {
	i.s.Helper()
	var err error
	i.s.within("unlock", func() { err = unlock() })
	if err != nil {
		i.s.Fatalf("unlock: %v", err)
	}
}

func (i *instance) mustLock() (unlock func()) {
	i.s.Helper()
	u, err := i.lock(i.s.ctx())
	if err != nil {
		i.s.Fatalf("Lock: %v", err)
	}
	return func() { i.s.Helper(); i.mustUnlock(u) }
}

func (i *instance) mustLockName(name string) (unlock func()) {
	i.s.Helper()
	u, err := i.lockName(i.s.ctx(), name)
	if err != nil {
		i.s.Fatalf("LockName(%q): %v", name, err)
	}
	return func() { i.s.Helper(); i.mustUnlock(u) }
}

// absent is what a state says where nothing is stored.
var absent []byte

// mustHold ends the test unless Load returns one of the states; absent stands
// for ErrNotFound.
func (i *instance) mustHold(when string, states ...[]byte) {
	i.s.Helper()
	data, err := i.load(i.s.ctx())
	if errors.Is(err, persistence.ErrNotFound) {
		data = absent
	} else if err != nil {
		i.s.Fatalf("Load %s: %v", when, err)
	} else if data == nil {
		data = []byte{}
	}
	if !slices.ContainsFunc(states, func(s []byte) bool { return same(s, data) }) {
		i.s.Fatalf("%s there is %s, want %s", when, summary(data), summary(states...))
	}
}

func same(a, b []byte) bool { return (a == nil) == (b == nil) && string(a) == string(b) }

// summary describes states for a failure message.
func summary(states ...[]byte) string {
	var out string
	for n, s := range states {
		if n > 0 {
			out += " or "
		}
		switch {
		case s == nil:
			out += "nothing"
		case len(s) <= 24:
			out += fmt.Sprintf("%q", s)
		default:
			out += fmt.Sprintf("%d bytes %q…", len(s), s[:16])
		}
	}
	return out
}

// value returns data number n: size bytes, or as many as the backend takes,
// that no other number shares.
func (s *suite) value(n, size int) []byte {
	size = min(size, s.max())
	seed := [32]byte{1: byte(n), 2: byte(n >> 8), 3: byte(n >> 16)}
	data := make([]byte, size)
	rand.NewChaCha8(seed).Read(data)
	return data
}
