package persistencetest_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

func TestFaultyFailsTheCallsThatItIsTold(t *testing.T) {
	ctx := t.Context()
	m := persistence.NewMemory()
	p := persistencetest.Faulty(m,
		persistencetest.Fault{Op: "Save", Call: 2, Err: io.ErrShortWrite},
		persistencetest.Fault{Op: "Save", Call: 4, Err: io.ErrClosedPipe, Late: true},
		persistencetest.Fault{Op: "Delete", Err: persistence.ErrUnavailable},
	)
	holds := func(want string) {
		t.Helper()
		if got, err := m.Load(ctx); string(got) != want || err != nil {
			t.Errorf("there is %q, %v, want %q", got, err, want)
		}
	}
	save := func(data string, want error) {
		t.Helper()
		if err := p.Save(ctx, []byte(data)); !errors.Is(err, want) {
			t.Errorf("Save: %v, want %v", err, want)
		}
	}
	save("1", nil)
	save("2", io.ErrShortWrite)
	holds("1")
	save("3", nil)
	holds("3")
	save("4", io.ErrClosedPipe)
	holds("4") // late: stored, and yet an error
	save("5", nil)
	for range 2 {
		err := p.Delete(ctx)
		var e *persistence.Error
		ok := errors.As(err, &e)
		if !ok || e.Op != "delete" || e.Backend != "memory" || !errors.Is(err, persistence.ErrUnavailable) {
			t.Errorf("Delete: %#v, want a *persistence.Error of the memory backend", err)
		}
	}
	holds("5")
	if data, err := p.Load(ctx); string(data) != "5" || err != nil {
		t.Errorf("Load: %q, %v", data, err)
	}
}

func TestFaultyKeepsAnErrorThatIsWholeAlready(t *testing.T) {
	want := &persistence.Error{Op: "load", Backend: "vault", Err: persistence.ErrCorrupt, Remedy: "Restore it."}
	p := persistencetest.Faulty(persistence.NewMemory(), persistencetest.Fault{Op: "Load", Err: want})
	if _, err := p.Load(t.Context()); err != want {
		t.Errorf("Load: %v, want the very error of the fault", err)
	}
}

// aside is a memory that sets aside.
type aside struct{ *persistence.Memory }

func (a aside) SetAside(ctx context.Context, rev string) (string, error) {
	return "elsewhere", a.DeleteIf(ctx, rev)
}

// Every method of Versioned, SetAsider and NamedLocker can fail, and then returns nothing
// beside the error.
func TestFaultyFailsEveryOperation(t *testing.T) {
	ctx := t.Context()
	type all interface {
		persistence.Versioned
		persistence.SetAsider
		persistence.NamedLocker
	}
	for _, op := range []string{"Load", "Save", "Delete", "Revision", "LoadRevision", "SaveIf", "DeleteIf", "SetAside", "Lock", "LockName", "Unlock"} {
		for _, late := range []bool{false, true} {
			m := persistence.NewMemory()
			rev, err := m.SaveIf(ctx, []byte("data"), "")
			if err != nil {
				t.Fatal(err)
			}
			p := persistencetest.Faulty(aside{m}, persistencetest.Fault{Op: op, Err: io.ErrUnexpectedEOF, Late: late}).(all)
			var data []byte
			var now string
			var unlock func() error
			switch op {
			case "Load":
				data, err = p.Load(ctx)
			case "Save":
				err = p.Save(ctx, []byte("new"))
			case "Delete":
				err = p.Delete(ctx)
			case "Revision":
				now, err = p.Revision(ctx)
			case "LoadRevision":
				data, _, err = p.LoadRevision(ctx)
			case "SaveIf":
				now, err = p.SaveIf(ctx, []byte("new"), rev)
			case "DeleteIf":
				err = p.DeleteIf(ctx, rev)
			case "SetAside":
				now, err = p.SetAside(ctx, rev)
			case "Lock":
				unlock, err = p.Lock(ctx)
			case "LockName":
				unlock, err = p.LockName(ctx, "name")
			case "Unlock":
				u, lockErr := p.Lock(ctx)
				if lockErr != nil {
					t.Fatal(lockErr)
				}
				err = u()
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) || data != nil || now != "" || unlock != nil {
				t.Errorf("%s, late %v: %v, want the fault and nothing beside it", op, late, err)
			}
			changed := false
			if after, _ := m.Revision(ctx); after != rev {
				changed = true
			}
			writes := slices.Contains([]string{"Save", "Delete", "SaveIf", "DeleteIf", "SetAside"}, op)
			if changed != (writes && late) {
				t.Errorf("%s, late %v: what is stored has changed: %v", op, late, changed)
			}
			// Whatever failed, no lock is left behind.
			for _, lock := range []func(context.Context) (func() error, error){
				m.Lock, func(ctx context.Context) (func() error, error) { return m.LockName(ctx, "name") },
			} {
				patient, cancel := context.WithTimeout(ctx, 4*time.Minute) // a free lock needs none of it
				u, err := lock(patient)
				cancel()
				free := err == nil
				if free {
					_ = u()
				}
				if !free {
					t.Errorf("%s, late %v: a lock is left behind", op, late)
				}
			}
		}
	}
}

func TestFaultyCountsOverAllGoroutines(t *testing.T) {
	p := persistencetest.Faulty(persistence.NewMemory(), persistencetest.Fault{Op: "Save", Call: 50, Err: io.EOF})
	var all sync.WaitGroup
	failed := make(chan error, 100)
	for range 100 {
		all.Go(func() {
			if err := p.Save(t.Context(), nil); err != nil {
				failed <- err
			}
		})
	}
	all.Wait()
	if len(failed) != 1 {
		t.Errorf("%d calls of 100 failed, want one", len(failed))
	}
}

func TestFaultyPanicsOnAFaultThatCannotHappen(t *testing.T) {
	for name, f := range map[string]persistencetest.Fault{
		"no such operation": {Op: "save", Err: io.EOF},
		"no error":          {Op: "Save"},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("Faulty did not panic")
				}
			}()
			persistencetest.Faulty(persistence.NewMemory(), f)
		})
	}
}

func TestInterceptPassesOnAbilities(t *testing.T) {
	persistencetest.RunWrapper(t, func(p persistence.Persistence) persistence.Persistence {
		return persistencetest.Intercept(p, func(_ context.Context, _ string, call func() error) error { return call() })
	})
}

func TestFaultyPassesOnAbilities(t *testing.T) {
	persistencetest.RunWrapper(t, func(p persistence.Persistence) persistence.Persistence { return persistencetest.Faulty(p) })
}

func TestInterceptCountsEveryCall(t *testing.T) {
	ctx := t.Context()
	calls := make(map[string]int)
	p := persistencetest.Intercept(persistence.NewMemory(), func(_ context.Context, op string, call func() error) error {
		calls[op]++
		return call()
	}).(persistence.Versioned)
	rev, err := p.SaveIf(ctx, []byte("data"), "")
	if err != nil {
		t.Fatal(err)
	}
	if now, err := p.Revision(ctx); now != rev || err != nil {
		t.Errorf("Revision: %q, %v, want %q", now, err, rev)
	}
	if data, now, err := p.LoadRevision(ctx); string(data) != "data" || now != rev || err != nil {
		t.Errorf("LoadRevision: %q, %q, %v", data, now, err)
	}
	unlock, err := p.(persistence.Locker).Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"SaveIf", "Revision", "LoadRevision", "Lock", "Unlock"} {
		if calls[op] != 1 {
			t.Errorf("%s was called %d times, want once", op, calls[op])
		}
		delete(calls, op)
	}
	if len(calls) > 0 {
		t.Errorf("and %v", calls)
	}
}
