package persistencetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// mutantVariable names the wrong backend that TestEndToEnd runs the suite on
// in a process of its own.
const mutantVariable = "PERSISTENCETEST_MUTANT"

func TestSuitePassesOnCorrectBackends(t *testing.T) {
	t.Run("persistence.Memory", func(t *testing.T) {
		Run(t, func(t *testing.T) Open {
			m := persistence.NewMemory()
			return func() (persistence.Persistence, error) { return m, nil }
		}, nil)
	})
	t.Run("memory", func(t *testing.T) { Run(t, openCorrect, &Options{MaxSize: correctMax, Damage: damageMemory}) })
	t.Run("plain", func(t *testing.T) {
		Run(t, func(t *testing.T) Open {
			open := openCorrect(t)
			return func() (persistence.Persistence, error) {
				p, err := open()
				return struct{ persistence.Persistence }{p}, err
			}
		}, &Options{MaxSize: correctMax})
	})
	t.Run("intercepted", func(t *testing.T) {
		Run(t, func(t *testing.T) Open {
			open := openCorrect(t)
			return func() (persistence.Persistence, error) {
				p, err := open()
				return Faulty(p), err
			}
		}, &Options{MaxSize: correctMax})
	})
}

// A mutant with one rule beside it breaks that rule and no other, one with
// several breaks at least these; and each rule has a mutant that it alone
// catches.
func TestEveryRuleCatchesItsMutants(t *testing.T) {
	alone := make(map[string]bool)
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			broken := brokenBy(t, m)
			for _, rule := range m.breaks {
				if !slices.Contains(broken, rule) {
					t.Errorf("the rule %s does not catch it", rule)
				}
			}
			if len(m.breaks) == 1 {
				if len(broken) > 1 {
					t.Errorf("breaks the rules %v, want %v alone", broken, m.breaks)
				}
				alone[m.breaks[0]] = true
			}
		})
	}
	for _, r := range rules {
		if !alone[r.name] {
			t.Errorf("no mutant is caught by the rule %s alone", r.name)
		}
	}
	if broken := brokenBy(t, mutant{name: "control"}); len(broken) > 0 {
		t.Errorf("a correct backend breaks %v", broken)
	}
}

// brokenBy returns the names of the rules that m breaks. Time is synthetic, so
// that a call that hangs costs none.
func brokenBy(t *testing.T, m mutant) (broken []string) {
	opts := Options{MaxSize: correctMax, Damage: damageMemory}
	for _, r := range rules {
		synctest.Test(t, func(t *testing.T) {
			p, _ := m.open(t)()
			has := abilitiesOf(p)
			if !r.applies(has, &opts) {
				return
			}
			rec := &recorder{TB: t}
			s := &suite{rec, func() Open { return m.open(t) }, opts, has}
			done := make(chan struct{})
			go func() {
				defer close(done)
				r.check(s, rec)
			}()
			<-done
			if rec.Failed() {
				broken = append(broken, r.name)
				if !strings.Contains(strings.Join(rec.lines, "\n"), "the rule: "+r.text) {
					t.Errorf("the rule %s does not say what it is:\n%s", r.name, strings.Join(rec.lines, "\n"))
				}
				if testing.Verbose() {
					t.Logf("%s:\n\t%s", r.name, strings.Join(rec.lines, "\n\t"))
				}
			}
		})
	}
	return broken
}

// recorder notes failures in place of failing the test.
type recorder struct {
	testing.TB
	mu     sync.Mutex
	failed bool
	lines  []string
}

func (r *recorder) note(failed bool, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.lines = append(r.lines, text)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Helper()                        {}
func (r *recorder) Logf(format string, a ...any)   { r.note(false, fmt.Sprintf(format, a...)) }
func (r *recorder) Errorf(format string, a ...any) { r.note(true, fmt.Sprintf(format, a...)) }
func (r *recorder) Fatalf(format string, a ...any) { r.Errorf(format, a...); runtime.Goexit() }

// The real Run on a wrong backend, in a process of its own: the test must fail
// and print the rule.
func TestEndToEnd(t *testing.T) {
	if name := os.Getenv(mutantVariable); name != "" {
		i := slices.IndexFunc(mutants, func(m mutant) bool { return m.name == name })
		Run(t, mutants[i].open, &Options{MaxSize: correctMax, Damage: damageMemory})
		return
	}
	const name = "Load of nothing returns an empty slice beside the error"
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestEndToEnd$")
	cmd.Env = append(os.Environ(), mutantVariable+"="+name)
	out, err := cmd.CombinedOutput()
	var target *exec.ExitError
	if !errors.As(err, &target) {
		t.Fatalf("the suite on a wrong backend: %v, want a failed test\n%s", err, out)
	}
	for _, want := range []string{"--- FAIL: TestEndToEnd/Absent", "the rule: " + rules[0].text} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if got := strings.Count(string(out), "the rule: "); got != 1 {
		t.Errorf("the output names %d rules, want 1:\n%s", got, out)
	}
}

func TestRunRefusesAMaxSizeTooSmallToTest(t *testing.T) {
	if os.Getenv(mutantVariable) != "" {
		Run(t, openCorrect, &Options{MaxSize: 255})
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestRunRefusesAMaxSizeTooSmallToTest$")
	cmd.Env = append(os.Environ(), mutantVariable+"=any")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "must be 0 or at least 256") {
		t.Errorf("Run with MaxSize 255: %v\n%s", err, out)
	}
}

// correctMax is the largest data that memory takes.
const correctMax = 1 << 16

// shared is a storage in memory; each memory on it is an instance.
type shared struct {
	mu    sync.Mutex
	data  []byte // nil: nothing is stored
	rev   string
	saves int
	locks map[string]chan struct{}

	id int64

	damaged bool // what is stored

	owner string // of the lease
	until time.Time

	// For mutants.
	newRevision func() string // in place of set's own
	loads       atomic.Int64
	saveIfs     atomic.Int64  // successful ones
	checks      atomic.Int64  // of a SaveIf that checks and saves in two steps
	ended       chan struct{} // closed when the test ends: whoever hangs for ever waits for it
}

var storages atomic.Int64

func newShared(t *testing.T) *shared {
	sh := &shared{locks: make(map[string]chan struct{}), id: storages.Add(1), ended: make(chan struct{})}
	if t != nil {
		t.Cleanup(func() { close(sh.ended) })
	}
	return sh
}

func openCorrect(t *testing.T) Open { return mutant{}.open(t) }

// memory is a correct backend. Its methods are functions, so that a mutant can
// replace one.
type memory struct {
	*shared
	load         func(ctx context.Context) ([]byte, error)
	save         func(ctx context.Context, data []byte) error
	delete       func(ctx context.Context) error
	revision     func(ctx context.Context) (string, error)
	loadRevision func(ctx context.Context) ([]byte, string, error)
	saveIf       func(ctx context.Context, data []byte, rev string) (string, error)
	deleteIf     func(ctx context.Context, rev string) error
	lockNamed    func(ctx context.Context, name string) (func() error, error)
	setAside     func(ctx context.Context, rev string) (string, error)
	lease        func(owner string, d time.Duration) bool
	release      func(owner string)
	describe     func() persistence.Description
}

// mutant is a wrong backend: breakIt is called for each new instance.
type mutant struct {
	name    string
	breaks  []string
	breakIt func(m *memory)
}

func (mu mutant) open(t *testing.T) Open {
	sh := newShared(t)
	return func() (persistence.Persistence, error) {
		m := newMemory(sh)
		if mu.breakIt != nil {
			mu.breakIt(m)
		}
		return m, nil
	}
}

func failure(op string, err error) error {
	return &persistence.Error{Op: op, Backend: "memory", Location: "here", Err: err}
}

func newMemory(sh *shared) *memory {
	return &memory{
		shared: sh,
		load: func(ctx context.Context) ([]byte, error) {
			data, _, err := sh.get(ctx)
			return data, err
		},
		save: func(ctx context.Context, data []byte) error {
			_, err := sh.put(ctx, data, nil)
			return err
		},
		delete: func(ctx context.Context) error { return sh.remove(ctx, nil) },
		revision: func(ctx context.Context) (string, error) {
			if err := ctx.Err(); err != nil {
				return "", failure("revision", err)
			}
			sh.mu.Lock()
			defer sh.mu.Unlock()
			return sh.rev, nil
		},
		loadRevision: sh.get,
		saveIf: func(ctx context.Context, data []byte, rev string) (string, error) {
			return sh.put(ctx, data, &rev)
		},
		deleteIf:  func(ctx context.Context, rev string) error { return sh.remove(ctx, &rev) },
		lockNamed: sh.lock,
		setAside:  sh.setAside,
		lease:     sh.lease,
		release:   sh.release,
		describe: func() persistence.Description {
			return persistence.Description{Backend: "memory", Location: "here"}
		},
	}
}

func (sh *shared) get(ctx context.Context) ([]byte, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", failure("load", err)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.loads.Add(1)
	if sh.data == nil {
		return nil, "", failure("load", persistence.ErrNotFound)
	}
	if sh.damaged {
		return nil, sh.rev, failure("load", persistence.ErrCorrupt)
	}
	return append([]byte{}, sh.data...), sh.rev, nil
}

func damageMemory(t testing.TB, p persistence.Persistence) {
	m := p.(*memory)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.damaged = true
}

func (sh *shared) setAside(ctx context.Context, rev string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", failure("set aside", err)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if rev == "" || rev != sh.rev {
		return "", failure("set aside", persistence.ErrConflict)
	}
	sh.data, sh.rev, sh.damaged = nil, "", false
	return "elsewhere", nil
}

// put saves data, if rev is nil or the stored revision.
func (sh *shared) put(ctx context.Context, data []byte, rev *string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", failure("save", err)
	}
	if len(data) > correctMax {
		return "", failure("save", persistence.ErrTooLarge)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if rev != nil {
		if *rev != sh.rev {
			return "", failure("save", persistence.ErrConflict)
		}
		sh.saveIfs.Add(1)
	}
	sh.set(append([]byte{}, data...))
	return sh.rev, nil
}

// set stores data under a new revision. sh.mu is held.
func (sh *shared) set(data []byte) {
	sh.saves++
	sh.data, sh.damaged = data, false
	sh.rev = fmt.Sprintf("storage %d save %d", sh.id, sh.saves)
	if sh.newRevision != nil {
		sh.rev = sh.newRevision()
	}
}

func (sh *shared) remove(ctx context.Context, rev *string) error {
	if err := ctx.Err(); err != nil {
		return failure("delete", err)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if rev != nil && *rev != sh.rev {
		return failure("delete", persistence.ErrConflict)
	}
	sh.data, sh.rev, sh.damaged = nil, "", false
	return nil
}

// chanOf returns the channel that is full while the lock of that name is taken.
func (sh *shared) chanOf(name string) chan struct{} {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.locks[name] == nil {
		sh.locks[name] = make(chan struct{}, 1)
	}
	return sh.locks[name]
}

func (sh *shared) lock(ctx context.Context, name string) (func() error, error) {
	c := sh.chanOf(name)
	if ctx.Err() == nil {
		select {
		case c <- struct{}{}:
			return func() error { <-c; return nil }, nil
		case <-ctx.Done():
		}
	}
	return nil, failure("lock", fmt.Errorf("%w: %w", persistence.ErrLockTimeout, ctx.Err()))
}

func (sh *shared) lease(owner string, d time.Duration) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.owner != "" && sh.owner != owner && time.Now().Before(sh.until) {
		return false
	}
	sh.owner, sh.until = owner, time.Now().Add(d)
	return true
}

func (sh *shared) release(owner string) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.owner == owner {
		sh.owner = ""
	}
}

func (m *memory) Lease(ctx context.Context, owner string, d time.Duration) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, failure("lease", err)
	}
	return m.lease(owner, d), nil
}

func (m *memory) Release(ctx context.Context, owner string) error {
	if err := ctx.Err(); err != nil {
		return failure("release", err)
	}
	m.release(owner)
	return nil
}

func (m *memory) Load(ctx context.Context) ([]byte, error)     { return m.load(ctx) }
func (m *memory) Save(ctx context.Context, data []byte) error  { return m.save(ctx, data) }
func (m *memory) Delete(ctx context.Context) error             { return m.delete(ctx) }
func (m *memory) Revision(ctx context.Context) (string, error) { return m.revision(ctx) }
func (m *memory) LoadRevision(ctx context.Context) ([]byte, string, error) {
	return m.loadRevision(ctx)
}
func (m *memory) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	return m.saveIf(ctx, data, rev)
}
func (m *memory) SetAside(ctx context.Context, rev string) (string, error) {
	return m.setAside(ctx, rev)
}
func (m *memory) DeleteIf(ctx context.Context, rev string) error { return m.deleteIf(ctx, rev) }
func (m *memory) Describe() persistence.Description              { return m.describe() }

// plainLock is the name of the lock of Lock: one that no rule chooses.
const plainLock = "\x01"

func (m *memory) Lock(ctx context.Context) (func() error, error) { return m.lockNamed(ctx, plainLock) }
func (m *memory) LockName(ctx context.Context, name string) (func() error, error) {
	return m.lockNamed(ctx, name)
}

// yieldUntil lets others run until done, or for long if that never comes.
func yieldUntil(done func() bool) {
	for n := 0; n < 1_000 && !done(); n++ {
		runtime.Gosched()
	}
}

// mapLoad returns load with its results changed.
func mapLoad(load func(context.Context) ([]byte, error), f func([]byte, error) ([]byte, error)) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) { return f(load(ctx)) }
}

// alter makes both ways of saving change the data first.
func alter(m *memory, f func(data []byte) []byte) {
	save, saveIf := m.save, m.saveIf
	m.save = func(ctx context.Context, data []byte) error { return save(ctx, f(data)) }
	m.saveIf = func(ctx context.Context, data []byte, rev string) (string, error) {
		return saveIf(ctx, f(data), rev)
	}
}

// everyError changes the errors of every method.
func everyError(m *memory, f func(err error) error) {
	load, save, del, revision, loadRevision := m.load, m.save, m.delete, m.revision, m.loadRevision
	saveIf, deleteIf, lock := m.saveIf, m.deleteIf, m.lockNamed
	g := func(err error) error {
		if err == nil {
			return nil
		}
		return f(err)
	}
	m.load = func(ctx context.Context) ([]byte, error) { d, err := load(ctx); return d, g(err) }
	m.save = func(ctx context.Context, d []byte) error { return g(save(ctx, d)) }
	m.delete = func(ctx context.Context) error { return g(del(ctx)) }
	m.revision = func(ctx context.Context) (string, error) { r, err := revision(ctx); return r, g(err) }
	m.loadRevision = func(ctx context.Context) ([]byte, string, error) {
		d, r, err := loadRevision(ctx)
		return d, r, g(err)
	}
	m.saveIf = func(ctx context.Context, d []byte, r string) (string, error) {
		r, err := saveIf(ctx, d, r)
		return r, g(err)
	}
	m.deleteIf = func(ctx context.Context, r string) error { return g(deleteIf(ctx, r)) }
	m.lockNamed = func(ctx context.Context, n string) (func() error, error) {
		u, err := lock(ctx, n)
		return u, g(err)
	}
}

// revisions makes f, which is called with mu held, the source of revisions.
func revisions(m *memory, f func() string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.newRevision = f
}

// onSave calls f before each Save.
func onSave(m *memory, f func(ctx context.Context, data []byte) error) {
	save := m.save
	m.save = func(ctx context.Context, data []byte) error {
		if err := f(ctx, data); err != nil {
			return err
		}
		return save(ctx, data)
	}
}

func stored(m *memory) (data []byte, rev string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data, m.rev
}

var mutants = []mutant{
	{"Load of nothing returns an empty slice beside the error", []string{"Absent"}, func(m *memory) {
		m.load = mapLoad(m.load, func(d []byte, err error) ([]byte, error) {
			if errors.Is(err, persistence.ErrNotFound) {
				d = []byte{}
			}
			return d, err
		})
	}},
	{"Load of nothing succeeds", []string{"Absent", "Delete", "Reopen"}, func(m *memory) {
		m.load = mapLoad(m.load, func(d []byte, err error) ([]byte, error) {
			if errors.Is(err, persistence.ErrNotFound) {
				return nil, nil
			}
			return d, err
		})
	}},
	{"Load of nothing fails with fs.ErrNotExist alone", []string{"Absent", "Delete", "Reopen"}, func(m *memory) {
		m.load = mapLoad(m.load, func(d []byte, err error) ([]byte, error) {
			if errors.Is(err, persistence.ErrNotFound) {
				return nil, failure("load", fs.ErrNotExist)
			}
			return d, err
		})
	}},
	{"Load of empty data returns nil", []string{"Empty"}, func(m *memory) {
		m.load = mapLoad(m.load, func(d []byte, err error) ([]byte, error) {
			if len(d) == 0 {
				return nil, err
			}
			return d, err
		})
	}},
	{"Save of nil is ignored", []string{"Empty", "SaveIfAbsent"}, func(m *memory) {
		save := m.save
		m.save = func(ctx context.Context, d []byte) error {
			if d == nil {
				return nil
			}
			return save(ctx, d)
		}
	}},
	{"a line end at the end is lost", []string{"Bytes"}, func(m *memory) {
		alterShort(m, func(d []byte) []byte { return bytes.TrimSuffix(d, []byte("\n")) })
	}},
	{"data ends at a NUL", []string{"Bytes"}, func(m *memory) {
		alterShort(m, func(d []byte) []byte { d, _, _ = bytes.Cut(d, []byte{0}); return d })
	}},
	{"invalid UTF-8 is replaced", []string{"Bytes"}, func(m *memory) {
		alterShort(m, func(d []byte) []byte { return bytes.ToValidUTF8(d, []byte("\ufffd")) })
	}},
	{"large data is cut", []string{"Large"}, func(m *memory) {
		alter(m, func(d []byte) []byte {
			if len(d) <= correctMax {
				return d[:min(len(d), 50_000)]
			}
			return d
		})
	}},
	{"the old value is gone when the new one is too large", []string{"TooLarge"}, func(m *memory) {
		onSave(m, func(ctx context.Context, d []byte) error {
			if len(d) > correctMax {
				return m.delete(ctx)
			}
			return nil
		})
	}},
	{"too large fails with an error of no class", []string{"TooLarge"}, func(m *memory) {
		everyError(m, func(err error) error {
			if errors.Is(err, persistence.ErrTooLarge) {
				return failure("save", errors.New("quota"))
			}
			return err
		})
	}},
	{"a shorter value leaves the end of the longer one", []string{"Replace"}, func(m *memory) {
		save := m.save
		m.save = func(ctx context.Context, d []byte) error {
			if old, _ := stored(m); len(old) == 10_000 && len(d) < len(old) {
				d = slices.Concat(d, old[len(d):])
			}
			return save(ctx, d)
		}
	}},
	{"Save keeps its argument", []string{"Ownership"}, func(m *memory) {
		save := m.save
		m.save = func(ctx context.Context, d []byte) error {
			err := save(ctx, d)
			if err == nil && d != nil {
				m.mu.Lock()
				m.data = d
				m.mu.Unlock()
			}
			return err
		}
	}},
	{"Load returns what is stored itself", []string{"Ownership"}, func(m *memory) {
		m.load = mapLoad(m.load, func(d []byte, err error) ([]byte, error) {
			if err == nil {
				d, _ = stored(m)
			}
			return d, err
		})
	}},
	{"Delete of nothing fails", []string{"DeleteNothing"}, func(m *memory) {
		del := m.delete
		m.delete = func(ctx context.Context) error {
			if d, _ := stored(m); d == nil {
				return failure("delete", persistence.ErrNotFound)
			}
			return del(ctx)
		}
	}},
	{"Delete leaves empty data", []string{"Delete", "Reopen", "Revision", "SaveIfAbsent"}, func(m *memory) {
		m.delete = func(ctx context.Context) error { return m.save(ctx, nil) }
	}},
	{"the second Delete leaves the data, without a revision", []string{"Delete"}, func(m *memory) {
		del := m.delete
		deletes := 0
		m.delete = func(ctx context.Context) error {
			d, _ := stored(m)
			err := del(ctx)
			if err == nil {
				deletes++
			}
			if deletes == 2 {
				m.mu.Lock()
				m.data = d
				m.mu.Unlock()
			}
			return err
		}
	}},
	{"an instance remembers that nothing was stored", []string{"Reopen"}, func(m *memory) {
		load, save, saveIf, deleteIf := m.load, m.save, m.saveIf, m.deleteIf
		var nothing atomic.Bool // until it does something else
		m.load = func(ctx context.Context) ([]byte, error) {
			if nothing.Load() {
				return nil, failure("load", persistence.ErrNotFound)
			}
			d, err := load(ctx)
			nothing.Store(errors.Is(err, persistence.ErrNotFound))
			return d, err
		}
		m.save = func(ctx context.Context, d []byte) error { nothing.Store(false); return save(ctx, d) }
		m.saveIf = func(ctx context.Context, d []byte, r string) (string, error) {
			nothing.Store(false)
			return saveIf(ctx, d, r)
		}
		m.deleteIf = func(ctx context.Context, r string) error { nothing.Store(false); return deleteIf(ctx, r) }
	}},
	{"Save writes in place, half by half", []string{"Concurrent"}, func(m *memory) {
		onSave(m, func(ctx context.Context, d []byte) error {
			m.mu.Lock()
			if len(d) < 20_000 || len(d) > correctMax || m.data == nil || ctx.Err() != nil {
				m.mu.Unlock()
				return nil
			}
			half := len(d) / 2
			m.data = slices.Concat(d[:half], m.data[min(half, len(m.data)):])
			seen := m.loads.Load()
			m.mu.Unlock()
			yieldUntil(func() bool { return m.loads.Load() > seen })
			return nil
		})
	}},
	{"Save hangs on a cancelled context", []string{"Cancelled", "Errors", "Secrets"}, func(m *memory) {
		onSave(m, func(ctx context.Context, d []byte) error {
			if errors.Is(ctx.Err(), context.Canceled) {
				<-m.ended
			}
			return nil
		})
	}},
	{"a cancelled Delete fails with an error of its own", []string{"Cancelled"}, func(m *memory) {
		del := m.delete
		m.delete = func(ctx context.Context) error {
			err := del(ctx)
			if errors.Is(err, context.Canceled) {
				return failure("delete", errors.New("interrupted"))
			}
			return err
		}
	}},
	{"a Save cancelled midway leaves half", []string{"CancelledMidway"}, func(m *memory) {
		save := m.save
		m.save = func(ctx context.Context, d []byte) error {
			if err := save(ctx, d); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				_ = save(context.Background(), d[:len(d)/2])
				return failure("save", err)
			}
			return nil
		}
	}},
	{"a Delete cancelled midway says that it succeeded", []string{"CancelledMidway"}, func(m *memory) {
		del := m.delete
		m.delete = func(ctx context.Context) error {
			before := ctx.Err()
			if after := ctx.Err(); before == nil && after != nil {
				return nil
			}
			return del(ctx)
		}
	}},
	{"a passed deadline counts as cancelled", []string{"Deadline"}, func(m *memory) {
		save := m.save
		m.save = func(ctx context.Context, d []byte) error {
			err := save(ctx, d)
			if errors.Is(err, context.DeadlineExceeded) {
				return failure("save", context.Canceled)
			}
			return err
		}
	}},
	{"Load hangs past its deadline", []string{"Deadline"}, func(m *memory) {
		load := m.load
		m.load = func(ctx context.Context) ([]byte, error) {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				<-m.ended
			}
			return load(ctx)
		}
	}},
	{"errors are bare", []string{"Errors"}, func(m *memory) {
		everyError(m, errors.Unwrap)
	}},
	{"errors name no backend", []string{"Errors"}, func(m *memory) {
		everyError(m, func(err error) error { return &persistence.Error{Op: "load", Err: errors.Unwrap(err)} })
	}},
	{"errors name another backend", []string{"Errors"}, func(m *memory) {
		everyError(m, func(err error) error {
			return &persistence.Error{Op: "load", Backend: "other", Err: errors.Unwrap(err)}
		})
	}},
	{"a conflict shows what is stored", []string{"Secrets"}, func(m *memory) {
		everyError(m, func(err error) error {
			if d, _ := stored(m); errors.Is(err, persistence.ErrConflict) {
				return failure("save", fmt.Errorf("%w: there is %x", persistence.ErrConflict, d))
			}
			return err
		})
	}},
	{"the cause of a cause shows what was saved", []string{"Secrets"}, func(m *memory) {
		save := m.save
		m.save = func(ctx context.Context, d []byte) error {
			err := save(ctx, d)
			var e *persistence.Error
			if errors.As(err, &e) {
				e.Err = &hushed{e.Err, &fs.PathError{Op: "write", Path: string(d), Err: e.Err}}
			}
			return err
		}
	}},
	{"the description shows what is stored", []string{"Secrets", "Describe"}, func(m *memory) {
		m.describe = func() persistence.Description {
			d, _ := stored(m)
			return persistence.Description{Backend: "memory", Location: string(d)}
		}
	}},
	{"the description changes after a Save", []string{"Describe"}, func(m *memory) {
		m.describe = func() persistence.Description {
			d, _ := stored(m)
			return persistence.Description{Backend: "memory", Encrypted: d != nil}
		}
	}},
	{"the description names no backend", []string{"Describe"}, func(m *memory) {
		m.describe = func() persistence.Description { return persistence.Description{Location: "here"} }
	}},

	{`Revision of nothing is "none"`, []string{"Revision"}, func(m *memory) {
		revision := m.revision
		m.revision = func(ctx context.Context) (string, error) {
			r, err := revision(ctx)
			if err == nil && r == "" {
				r = "none"
			}
			return r, err
		}
	}},
	{`Revision of empty data is ""`, []string{"Revision", "SaveIfAbsent"}, func(m *memory) {
		revisions(m, func() string {
			if len(m.data) == 0 {
				return ""
			}
			return m.rev
		})
	}},
	{"LoadRevision makes a revision of its own", []string{"LoadRevision", "OneMoment", "SaveIf"}, func(m *memory) {
		loadRevision := m.loadRevision
		m.loadRevision = func(ctx context.Context) ([]byte, string, error) {
			d, r, err := loadRevision(ctx)
			return d, "mine " + r, err
		}
	}},
	{"LoadRevision returns another revision beside an error", []string{"LoadRevisionFails"}, func(m *memory) {
		loadRevision := m.loadRevision
		m.loadRevision = func(ctx context.Context) ([]byte, string, error) {
			d, r, err := loadRevision(ctx)
			if err != nil && !errors.Is(err, persistence.ErrNotFound) {
				r = "another"
			}
			return d, r, err
		}
	}},
	{"LoadRevision returns data beside an error", []string{"LoadRevisionFails"}, func(m *memory) {
		loadRevision := m.loadRevision
		m.loadRevision = func(ctx context.Context) ([]byte, string, error) {
			d, r, err := loadRevision(ctx)
			if err != nil && !errors.Is(err, persistence.ErrNotFound) {
				d = []byte{}
			}
			return d, r, err
		}
	}},
	{"LoadRevision returns what is stored itself", []string{"LoadRevision"}, func(m *memory) {
		loadRevision := m.loadRevision
		m.loadRevision = func(ctx context.Context) ([]byte, string, error) {
			d, r, err := loadRevision(ctx)
			if now, rev := stored(m); err == nil && rev == r {
				d = now
			}
			return d, r, err
		}
	}},
	{"LoadRevision asks for the data, then for the revision", []string{"OneMoment"}, func(m *memory) {
		m.loadRevision = func(ctx context.Context) ([]byte, string, error) {
			d, err := m.load(ctx)
			if err != nil {
				return nil, "", err
			}
			_, was := stored(m)
			yieldUntil(func() bool { _, rev := stored(m); return rev != was })
			r, err := m.revision(ctx)
			if err != nil {
				return nil, "", err
			}
			return d, r, nil
		}
	}},
	{"the revision is a counter that starts again after a Delete", []string{"RevisionChanges", "SaveIfStale"}, func(m *memory) {
		revisions(m, func() string { return strconv.Itoa(m.saves) })
		del := m.delete
		m.delete = func(ctx context.Context) error {
			err := del(ctx)
			if err == nil {
				m.mu.Lock()
				m.saves = 0
				m.mu.Unlock()
			}
			return err
		}
	}},
	{"the revision is a counter that goes on after a Delete", []string{"RevisionChanges"}, func(m *memory) {
		revisions(m, func() string { return strconv.Itoa(m.saves) })
	}},
	{"the revision is a digest of the first 4,000 bytes", []string{"RevisionChanges"}, func(m *memory) {
		revisions(m, func() string { return fmt.Sprintf("%x", sha256.Sum256(m.data[:min(len(m.data), 4_000)])) })
	}},
	{"Revision does not notice another's Save of equal length", []string{"RevisionNoticed"}, func(m *memory) {
		// It remembers its answer while the length stays and nobody calls SaveIf.
		type state struct {
			size    int
			saveIfs int64
		}
		var (
			mu         sync.Mutex
			remembered = make(map[state]string)
		)
		forget := func() { mu.Lock(); clear(remembered); mu.Unlock() }
		revision, save, saveIf, deleteIf := m.revision, m.save, m.saveIf, m.deleteIf
		m.revision = func(ctx context.Context) (string, error) {
			d, _ := stored(m)
			now := state{len(d), m.saveIfs.Load()}
			r, err := revision(ctx)
			mu.Lock()
			defer mu.Unlock()
			if was, ok := remembered[now]; ok && d != nil && err == nil {
				return was, nil
			}
			if d != nil && err == nil {
				remembered[now] = r
			}
			return r, err
		}
		m.save = func(ctx context.Context, d []byte) error { forget(); return save(ctx, d) }
		m.saveIf = func(ctx context.Context, d []byte, r string) (string, error) {
			forget()
			return saveIf(ctx, d, r)
		}
		m.deleteIf = func(ctx context.Context, r string) error { forget(); return deleteIf(ctx, r) }
	}},
	{"SaveIf keeps its argument", []string{"SaveIf"}, func(m *memory) {
		saveIf := m.saveIf
		m.saveIf = func(ctx context.Context, d []byte, rev string) (string, error) {
			r, err := saveIf(ctx, d, rev)
			if err == nil {
				m.mu.Lock()
				if m.rev == r {
					m.data = d
				}
				m.mu.Unlock()
			}
			return r, err
		}
	}},
	{"SaveIf returns the revision that it was given", []string{"SaveIf", "OneMoment"}, func(m *memory) {
		saveIf := m.saveIf
		m.saveIf = func(ctx context.Context, d []byte, rev string) (string, error) {
			_, err := saveIf(ctx, d, rev)
			return rev, err
		}
	}},
	{"SaveIf takes what begins with the stored revision", []string{"SaveIfStale"}, func(m *memory) {
		saveIf := m.saveIf
		m.saveIf = func(ctx context.Context, d []byte, rev string) (string, error) {
			if _, now := stored(m); now != "" && strings.HasPrefix(rev, now) {
				rev = now
			}
			return saveIf(ctx, d, rev)
		}
	}},
	{"a SaveIf that conflicts changes the revision", []string{"SaveIfStale"}, func(m *memory) {
		saveIf := m.saveIf
		m.saveIf = func(ctx context.Context, d []byte, rev string) (string, error) {
			r, err := saveIf(ctx, d, rev)
			if errors.Is(err, persistence.ErrConflict) {
				m.mu.Lock()
				if m.data != nil {
					m.set(m.data)
				}
				m.mu.Unlock()
			}
			return r, err
		}
	}},
	{`SaveIf of "" saves always`, []string{"SaveIfAbsent", "OneWins"}, func(m *memory) {
		saveIf := m.saveIf
		m.saveIf = func(ctx context.Context, d []byte, rev string) (string, error) {
			if rev == "" {
				return m.put(ctx, d, nil)
			}
			return saveIf(ctx, d, rev)
		}
	}},
	{`SaveIf of "" overwrites empty data`, []string{"SaveIfAbsent"}, func(m *memory) {
		saveIf := m.saveIf
		m.saveIf = func(ctx context.Context, d []byte, rev string) (string, error) {
			if now, r := stored(m); rev == "" && len(now) == 0 {
				rev = r
			}
			return saveIf(ctx, d, rev)
		}
	}},
	{`DeleteIf of "" deletes always`, []string{"DeleteIf"}, func(m *memory) {
		deleteIf := m.deleteIf
		m.deleteIf = func(ctx context.Context, rev string) error {
			if rev == "" {
				return m.delete(ctx)
			}
			return deleteIf(ctx, rev)
		}
	}},
	{"DeleteIf of nothing conflicts", []string{"DeleteIf"}, func(m *memory) {
		deleteIf := m.deleteIf
		m.deleteIf = func(ctx context.Context, rev string) error {
			if rev == "" {
				return failure("delete", persistence.ErrConflict)
			}
			return deleteIf(ctx, rev)
		}
	}},
	{"SaveIf checks, then saves", []string{"OneWins"}, func(m *memory) {
		saveIf := m.saveIf
		m.saveIf = func(ctx context.Context, d []byte, rev string) (string, error) {
			if _, now := stored(m); now != rev || len(d) > correctMax || ctx.Err() != nil {
				return saveIf(ctx, d, rev)
			}
			n := m.checks.Add(1)
			yieldUntil(func() bool { return m.checks.Load() > n })
			return m.put(ctx, d, nil)
		}
	}},

	{"two owners have the lease", []string{"Lease"}, func(m *memory) {
		m.lease = func(string, time.Duration) bool { return true }
	}},
	{"the owner does not get its lease again", []string{"Lease"}, func(m *memory) {
		lease := m.lease
		m.lease = func(owner string, d time.Duration) bool {
			m.mu.Lock()
			mine := m.owner == owner && time.Now().Before(m.until)
			m.mu.Unlock()
			return !mine && lease(owner, d)
		}
	}},
	{"anybody can release the lease", []string{"Lease"}, func(m *memory) {
		m.release = func(string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.owner = ""
		}
	}},
	{"nobody can release the lease", []string{"Lease"}, func(m *memory) { m.release = func(string) {} }},
	{"a save ends the lease", []string{"Lease"}, func(m *memory) {
		onSave(m, func(context.Context, []byte) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.owner = ""
			return nil
		})
	}},
	{"a lease lasts for ever", []string{"LeaseEnds"}, func(m *memory) {
		lease := m.lease
		m.lease = func(owner string, _ time.Duration) bool { return lease(owner, 1000*time.Hour) }
	}},

	{"the lock does not exclude its own instance", []string{"LockExcludes"}, func(m *memory) {
		lock := m.lockNamed
		var (
			mu     sync.Mutex
			held   int
			unlock func() error
		)
		release := func() error {
			mu.Lock()
			defer mu.Unlock()
			if held--; held == 0 {
				return unlock()
			}
			return nil
		}
		m.lockNamed = func(ctx context.Context, name string) (func() error, error) {
			if name != plainLock {
				return lock(ctx, name)
			}
			mu.Lock()
			if held > 0 && ctx.Err() == nil {
				held++
				mu.Unlock()
				return release, nil
			}
			mu.Unlock()
			u, err := lock(ctx, name)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			held, unlock = 1, u
			return release, nil
		}
	}},
	{"each instance has a lock of its own", []string{"LockExcludes", "LockTimeout", "NameExcludes"}, func(m *memory) {
		m.lockNamed = newShared(nil).lock
	}},
	{"the lock times out with the context's error alone", []string{"LockTimeout"}, func(m *memory) {
		whenTaken(m, func(ctx context.Context, err error) error { return failure("lock", ctx.Err()) })
	}},
	{"the lock times out without the context's error", []string{"LockTimeout"}, func(m *memory) {
		whenTaken(m, func(ctx context.Context, err error) error { return failure("lock", persistence.ErrLockTimeout) })
	}},
	{"Lock waits past the end of its context", []string{"LockExcludes", "LockTimeout", "LockAbandoned"}, func(m *memory) {
		whenTaken(m, func(ctx context.Context, err error) error { <-m.ended; return err })
	}},
	{"an abandoned Lock takes the lock in the end", []string{"LockAbandoned"}, func(m *memory) {
		whenTaken(m, func(ctx context.Context, err error) error {
			go func() {
				select {
				case m.chanOf(plainLock) <- struct{}{}:
				case <-m.ended:
				}
			}()
			return err
		})
	}},
	{"Save waits for the lock that its caller has", []string{"LockedCalls"}, func(m *memory) {
		save := m.save
		m.save = func(ctx context.Context, d []byte) error {
			if ctx.Err() != nil {
				return save(ctx, d)
			}
			unlock, err := m.Lock(ctx)
			if err != nil {
				return err
			}
			defer unlock()
			return save(ctx, d)
		}
	}},
	{"each instance has named locks of its own", []string{"NameExcludes"}, func(m *memory) {
		lock, own := m.lockNamed, newShared(nil)
		m.lockNamed = func(ctx context.Context, name string) (func() error, error) {
			if name == plainLock {
				return lock(ctx, name)
			}
			return own.lock(ctx, name)
		}
	}},
	{"LockName takes the lock of Lock", []string{"NamesIndependent"}, func(m *memory) {
		rename(m, func(name string) string { return plainLock })
	}},
	{"names differ by more than case", []string{"NamesIndependent"}, func(m *memory) {
		rename(m, strings.ToLower)
	}},
	{"damage is not noticed", []string{"Corrupt"}, func(m *memory) {
		m.load = func(ctx context.Context) ([]byte, error) {
			data, _, err := m.loadRevision(ctx)
			return data, err
		}
		get := m.loadRevision
		m.loadRevision = func(ctx context.Context) ([]byte, string, error) {
			data, rev, err := get(ctx)
			if errors.Is(err, persistence.ErrCorrupt) {
				return []byte("garbage"), rev, nil
			}
			return data, rev, err
		}
	}},
	{"damaged data is shown", []string{"Corrupt"}, func(m *memory) {
		load := m.load
		m.load = func(ctx context.Context) ([]byte, error) {
			data, err := load(ctx)
			if errors.Is(err, persistence.ErrCorrupt) {
				m.mu.Lock()
				defer m.mu.Unlock()
				err = failure("load", fmt.Errorf("%w: %s", persistence.ErrCorrupt, m.data))
			}
			return data, err
		}
	}},
	{"damaged data comes beside the error", []string{"Corrupt"}, func(m *memory) {
		load := m.load
		m.load = func(ctx context.Context) ([]byte, error) {
			data, err := load(ctx)
			if errors.Is(err, persistence.ErrCorrupt) {
				data = []byte("garbage")
			}
			return data, err
		}
	}},
	{"Delete fails on damaged data", []string{"Corrupt"}, func(m *memory) {
		remove := m.delete
		m.delete = func(ctx context.Context) error {
			if m.isDamaged() {
				return failure("delete", persistence.ErrCorrupt)
			}
			return remove(ctx)
		}
	}},
	{"Delete of damaged data leaves it", []string{"Corrupt"}, func(m *memory) {
		remove := m.delete
		m.delete = func(ctx context.Context) error {
			if m.isDamaged() {
				return nil
			}
			return remove(ctx)
		}
	}},
	{"SetAside moves any revision", []string{"SetAside"}, func(m *memory) {
		m.setAside = func(ctx context.Context, _ string) (string, error) {
			m.mu.Lock()
			rev := m.rev
			m.mu.Unlock()
			return m.shared.setAside(ctx, rev)
		}
	}},
	{"SetAside leaves what is stored", []string{"SetAside"}, func(m *memory) {
		m.setAside = func(ctx context.Context, rev string) (string, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if rev == "" || rev != m.rev {
				return "", failure("set aside", persistence.ErrConflict)
			}
			return "elsewhere", nil
		}
	}},
	{"SetAside fails on damaged data", []string{"SetAside"}, func(m *memory) {
		move := m.setAside
		m.setAside = func(ctx context.Context, rev string) (string, error) {
			if m.isDamaged() {
				return "", failure("set aside", persistence.ErrCorrupt)
			}
			return move(ctx, rev)
		}
	}},
	{"names are parts of a path", []string{"NamesIndependent"}, func(m *memory) {
		rename(m, func(name string) string { return path.Join("/locks", name) })
	}},
}

func (sh *shared) isDamaged() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.damaged
}

// alterShort changes data of less than 50 bytes.
func alterShort(m *memory, f func(data []byte) []byte) {
	alter(m, func(d []byte) []byte {
		if len(d) < 50 {
			return f(d)
		}
		return d
	})
}

// whenTaken changes the error of a Lock that waited in vain.
func whenTaken(m *memory, f func(ctx context.Context, err error) error) {
	lock := m.lockNamed
	m.lockNamed = func(ctx context.Context, name string) (func() error, error) {
		u, err := lock(ctx, name)
		if err != nil && name == plainLock && len(m.chanOf(name)) == 1 {
			err = f(ctx, err)
		}
		return u, err
	}
}

// rename changes the names of locks.
func rename(m *memory, f func(name string) string) {
	lock := m.lockNamed
	m.lockNamed = func(ctx context.Context, name string) (func() error, error) {
		if name != plainLock {
			name = f(name)
		}
		return lock(ctx, name)
	}
}

// hushed is an error that does not show what it wraps.
type hushed struct{ shown, wrapped error }

func (h *hushed) Error() string { return h.shown.Error() }
func (h *hushed) Unwrap() error { return h.wrapped }
