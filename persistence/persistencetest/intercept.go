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
	"Lease": "lease", "Release": "release", "SetAside": "set aside",
}

// Intercept returns p with around put around each of its calls. op is the name
// of the method, or "Unlock" for the function that Lock and LockName return.
// call makes the call and returns its error; around may call it once or not at
// all, and its own result is what the caller gets. With an error the caller
// gets no data and no lock; without call and without an error it gets zero
// values. Unlock has no context of its own, and ctx is context.Background().
//
// What is returned has the abilities of p and no other: it is a Versioned, a Locker,
// a NamedLocker, a Leaser or a SetAsider exactly if p is (a SetAsider only if p is
// a Versioned too), and describes itself as p does. It is safe for concurrent use if
// around is.
func Intercept(p persistence.Persistence, around func(ctx context.Context, op string, call func() error) error) persistence.Persistence {
	return intercepted{p, around}.with(abilitiesOf(p))
}

// with returns i as a Persistence that has the abilities has, which are among those of
// what i intercepts.
func (i intercepted) with(has ability) persistence.Persistence {
	type (
		plain  = intercepted
		locks  = persistence.Locker
		names  = persistence.NamedLocker
		leases = persistence.Leaser
	)
	var (
		l = interceptedLocker{i}
		n = interceptedNamedLocker{l}
		e = interceptedLeaser{i}
		v = interceptedVersioned{i}
		a = interceptedSetAsider{v}
	)
	has &^= describer // which is always there
	if has&versioned == 0 {
		has &^= setAsider // it takes a revision
	}
	if has&namedLocker != 0 {
		has &^= locker // which every NamedLocker is
	}
	switch has {
	case 0:
		return i
	case locker:
		return struct {
			plain
			locks
		}{i, l}
	case namedLocker:
		return struct {
			plain
			names
		}{i, n}
	case leaser:
		return struct {
			plain
			leases
		}{i, e}
	case leaser | locker:
		return struct {
			plain
			locks
			leases
		}{i, l, e}
	case leaser | namedLocker:
		return struct {
			plain
			names
			leases
		}{i, n, e}
	case versioned:
		return v
	case versioned | locker:
		return struct {
			interceptedVersioned
			locks
		}{v, l}
	case versioned | namedLocker:
		return struct {
			interceptedVersioned
			names
		}{v, n}
	case versioned | leaser:
		return struct {
			interceptedVersioned
			leases
		}{v, e}
	case versioned | leaser | locker:
		return struct {
			interceptedVersioned
			locks
			leases
		}{v, l, e}
	case versioned | leaser | namedLocker:
		return struct {
			interceptedVersioned
			names
			leases
		}{v, n, e}
	case versioned | setAsider:
		return a
	case versioned | setAsider | locker:
		return struct {
			interceptedSetAsider
			locks
		}{a, l}
	case versioned | setAsider | namedLocker:
		return struct {
			interceptedSetAsider
			names
		}{a, n}
	case versioned | setAsider | leaser:
		return struct {
			interceptedSetAsider
			leases
		}{a, e}
	case versioned | setAsider | leaser | locker:
		return struct {
			interceptedSetAsider
			locks
			leases
		}{a, l, e}
	case versioned | setAsider | leaser | namedLocker:
		return struct {
			interceptedSetAsider
			names
			leases
		}{a, n, e}
	}
	panic("persistencetest: a backend is " + has.String() + ", which Intercept cannot pass on")
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

type interceptedVersioned struct{ intercepted }

func (i interceptedVersioned) v() persistence.Versioned { return i.p.(persistence.Versioned) }

func (i interceptedVersioned) Revision(ctx context.Context) (rev string, err error) {
	err = i.around(ctx, "Revision", func() (err error) { rev, err = i.v().Revision(ctx); return err })
	if err != nil {
		return "", err
	}
	return rev, nil
}

func (i interceptedVersioned) LoadRevision(ctx context.Context) (data []byte, rev string, err error) {
	// The revision of data that cannot be read is the caller's even with an error.
	err = i.around(ctx, "LoadRevision", func() (err error) { data, rev, err = i.v().LoadRevision(ctx); return err })
	if err != nil {
		return nil, rev, err
	}
	return data, rev, nil
}

func (i interceptedVersioned) SaveIf(ctx context.Context, data []byte, rev string) (now string, err error) {
	err = i.around(ctx, "SaveIf", func() (err error) { now, err = i.v().SaveIf(ctx, data, rev); return err })
	if err != nil {
		return "", err
	}
	return now, nil
}

func (i interceptedVersioned) DeleteIf(ctx context.Context, rev string) error {
	return i.around(ctx, "DeleteIf", func() error { return i.v().DeleteIf(ctx, rev) })
}

type interceptedSetAsider struct{ interceptedVersioned }

func (i interceptedSetAsider) SetAside(ctx context.Context, rev string) (place string, err error) {
	err = i.around(ctx, "SetAside", func() (err error) {
		place, err = i.p.(persistence.SetAsider).SetAside(ctx, rev)
		return err
	})
	if err != nil {
		return "", err
	}
	return place, nil
}

type interceptedLocker struct{ i intercepted }

func (i interceptedLocker) Lock(ctx context.Context) (func() error, error) {
	return i.lock(ctx, "Lock", func() (func() error, error) { return i.i.p.(persistence.Locker).Lock(ctx) })
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

type interceptedNamedLocker struct{ interceptedLocker }

func (i interceptedNamedLocker) LockName(ctx context.Context, name string) (func() error, error) {
	return i.lock(ctx, "LockName", func() (func() error, error) { return i.i.p.(persistence.NamedLocker).LockName(ctx, name) })
}

type interceptedLeaser struct{ i intercepted }

func (i interceptedLeaser) Lease(ctx context.Context, owner string, d time.Duration) (got bool, err error) {
	err = i.i.around(ctx, "Lease", func() (err error) { got, err = i.i.p.(persistence.Leaser).Lease(ctx, owner, d); return err })
	return got && err == nil, err
}

func (i interceptedLeaser) Release(ctx context.Context, owner string) error {
	return i.i.around(ctx, "Release", func() error { return i.i.p.(persistence.Leaser).Release(ctx, owner) })
}

// Fault is a failure for [Faulty] to inject.
type Fault struct {
	// Op is the method that fails: "Load", "Save", "Delete", "Revision",
	// "LoadRevision", "SaveIf", "DeleteIf", "SetAside", "Lease", "Release", "Lock",
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
