package persistencetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// operations maps the names that Intercept and Fault use to the Op of a
// persistence.Error.
var operations = map[string]string{
	"Load": "load", "Save": "save", "Delete": "delete",
	"Revision": "revision", "LoadRevision": "load", "SaveIf": "save", "DeleteIf": "delete",
	"Lock": "lock", "LockName": "lock", "Unlock": "unlock",
	"Lease": "lease", "Release": "release",
}

// Intercept returns p with around put around each of its calls. op is the name
// of the method, or "Unlock" for the function that Lock and LockName return.
// call makes the call and returns its error; around may call it once or not at
// all, and its own result is what the caller gets. With an error the caller
// gets no data and no lock; without call and without an error it gets zero
// values. Unlock has no context of its own, and ctx is context.Background().
//
// What is returned is a Versioned, a Locker, a NamedLocker or a Leaser exactly if
// p is, and describes itself as p does. It is safe for concurrent use if around is.
func Intercept(p persistence.Persistence, around func(ctx context.Context, op string, call func() error) error) persistence.Persistence {
	i := intercepted{p, around}
	r := i.withLocks()
	l, ok := p.(persistence.Leaser)
	if !ok {
		return r
	}
	lease := interceptedLeaser{i, l}
	type described interface {
		persistence.Persistence
		persistence.Describer
	}
	type versioned interface {
		persistence.Versioned
		persistence.Describer
	}
	type locker = persistence.Locker
	type namedLocker = persistence.NamedLocker
	type leaser = persistence.Leaser
	switch r := r.(type) {
	case interface {
		versioned
		namedLocker
	}:
		return struct {
			versioned
			namedLocker
			leaser
		}{r, r, lease}
	case interface {
		versioned
		locker
	}:
		return struct {
			versioned
			locker
			leaser
		}{r, r, lease}
	case versioned:
		return struct {
			versioned
			leaser
		}{r, lease}
	case interface {
		described
		namedLocker
	}:
		return struct {
			described
			namedLocker
			leaser
		}{r, r, lease}
	case interface {
		described
		locker
	}:
		return struct {
			described
			locker
			leaser
		}{r, r, lease}
	default:
		return struct {
			described
			leaser
		}{r.(described), lease}
	}
}

// withLocks returns i with the abilities of what it intercepts, but for leases.
func (i intercepted) withLocks() persistence.Persistence {
	p := i.p
	var (
		v, isVersioned = p.(persistence.Versioned)
		l, isLocker    = p.(persistence.Locker)
		n, isNamed     = p.(persistence.NamedLocker)
		versioned      = interceptedVersioned{i, v}
		locker         = interceptedLocker{i, l}
		named          = interceptedNamedLocker{locker, n}
	)
	switch {
	case isVersioned && isNamed:
		return struct {
			interceptedVersioned
			persistence.NamedLocker
		}{versioned, named}
	case isVersioned && isLocker:
		return struct {
			interceptedVersioned
			persistence.Locker
		}{versioned, locker}
	case isVersioned:
		return versioned
	case isNamed:
		return struct {
			intercepted
			persistence.NamedLocker
		}{i, named}
	case isLocker:
		return struct {
			intercepted
			persistence.Locker
		}{i, locker}
	default:
		return i
	}
}

type intercepted struct {
	p      persistence.Persistence
	around func(ctx context.Context, op string, call func() error) error
}

func (i intercepted) Load(ctx context.Context) (data []byte, err error) {
	err = i.around(ctx, "Load", func() (err error) { data, err = i.p.Load(ctx); return err })
	if err != nil {
		return nil, err
	}
	return data, nil
}

func (i intercepted) Save(ctx context.Context, data []byte) error {
	return i.around(ctx, "Save", func() error { return i.p.Save(ctx, data) })
}

func (i intercepted) Delete(ctx context.Context) error {
	return i.around(ctx, "Delete", func() error { return i.p.Delete(ctx) })
}

// Describe is there even if p does not describe itself: the zero Description
// that it then returns says just that.
func (i intercepted) Describe() persistence.Description { return persistence.Describe(i.p) }

type interceptedVersioned struct {
	intercepted
	v persistence.Versioned
}

func (i interceptedVersioned) Revision(ctx context.Context) (rev string, err error) {
	err = i.around(ctx, "Revision", func() (err error) { rev, err = i.v.Revision(ctx); return err })
	if err != nil {
		return "", err
	}
	return rev, nil
}

func (i interceptedVersioned) LoadRevision(ctx context.Context) (data []byte, rev string, err error) {
	// The revision of data that cannot be read is the caller's even with an error.
	err = i.around(ctx, "LoadRevision", func() (err error) { data, rev, err = i.v.LoadRevision(ctx); return err })
	if err != nil {
		return nil, rev, err
	}
	return data, rev, nil
}

func (i interceptedVersioned) SaveIf(ctx context.Context, data []byte, rev string) (now string, err error) {
	err = i.around(ctx, "SaveIf", func() (err error) { now, err = i.v.SaveIf(ctx, data, rev); return err })
	if err != nil {
		return "", err
	}
	return now, nil
}

func (i interceptedVersioned) DeleteIf(ctx context.Context, rev string) error {
	return i.around(ctx, "DeleteIf", func() error { return i.v.DeleteIf(ctx, rev) })
}

type interceptedLocker struct {
	i intercepted
	l persistence.Locker
}

func (i interceptedLocker) Lock(ctx context.Context) (func() error, error) {
	return i.lock(ctx, "Lock", func() (func() error, error) { return i.l.Lock(ctx) })
}

func (i interceptedLocker) lock(ctx context.Context, op string, lock func() (func() error, error)) (func() error, error) {
	var unlock func() error
	err := i.i.around(ctx, op, func() (err error) { unlock, err = lock(); return err })
	if err != nil {
		if unlock != nil {
			// The caller is told that it has no lock, so it must not have one.
			err = errors.Join(err, unlock())
		}
		return nil, err
	}
	if unlock == nil {
		return nil, nil
	}
	return func() error { return i.i.around(context.Background(), "Unlock", unlock) }, nil
}

type interceptedNamedLocker struct {
	interceptedLocker
	n persistence.NamedLocker
}

func (i interceptedNamedLocker) LockName(ctx context.Context, name string) (func() error, error) {
	return i.lock(ctx, "LockName", func() (func() error, error) { return i.n.LockName(ctx, name) })
}

type interceptedLeaser struct {
	i intercepted
	l persistence.Leaser
}

func (i interceptedLeaser) Lease(ctx context.Context, owner string, d time.Duration) (got bool, err error) {
	err = i.i.around(ctx, "Lease", func() (err error) { got, err = i.l.Lease(ctx, owner, d); return err })
	return got && err == nil, err
}

func (i interceptedLeaser) Release(ctx context.Context, owner string) error {
	return i.i.around(ctx, "Release", func() error { return i.l.Release(ctx, owner) })
}

// Fault is a failure for [Faulty] to inject.
type Fault struct {
	// Op is the method that fails: "Load", "Save", "Delete", "Revision",
	// "LoadRevision", "SaveIf", "DeleteIf", "Lease", "Release", "Lock",
	// "LockName", or "Unlock" for the function that the last two return.
	Op string
	// Call says which call of it fails: 1 is the first. 0 means every call.
	Call int
	// Err is the cause. Unless it is a *persistence.Error already it is put into
	// one, so that the caller sees what a backend would return.
	Err error
	// Late makes the call take effect before it fails, as when a Save was
	// stored and its answer lost. An Unlock always takes effect; a Lock that
	// fails never does.
	Late bool
}

// Faulty returns p with faults. Calls are counted from now on, each operation
// for itself, and over all goroutines. It passes on the abilities of p as
// [Intercept] does, and panics if a fault has an unknown Op or no Err.
func Faulty(p persistence.Persistence, faults ...Fault) persistence.Persistence {
	for _, f := range faults {
		if operations[f.Op] == "" || f.Err == nil {
			panic(fmt.Sprintf("persistencetest: a fault that cannot happen: Op %q, Err %v", f.Op, f.Err))
		}
	}
	faults = slices.Clone(faults)
	var mu sync.Mutex
	calls := make(map[string]int)
	return Intercept(p, func(_ context.Context, op string, call func() error) error {
		mu.Lock()
		calls[op]++
		n := calls[op]
		mu.Unlock()
		i := slices.IndexFunc(faults, func(f Fault) bool { return f.Op == op && (f.Call == 0 || f.Call == n) })
		if i < 0 {
			return call()
		}
		if faults[i].Late || op == "Unlock" {
			if err := call(); err != nil {
				return err
			}
		}
		var target *persistence.Error
		if errors.As(faults[i].Err, &target) {
			return faults[i].Err
		}
		d := persistence.Describe(p)
		return &persistence.Error{Op: operations[op], Backend: d.Backend, Location: d.Location, Err: faults[i].Err}
	})
}
