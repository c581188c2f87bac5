package persistence

import (
	"context"
	"maps"
	"reflect"
	"sync"

	"github.com/tokenkeep/tokenkeep/internal/replica"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// clientMemory is what a Cache or a Partitioned knows of one in-memory cache: that of
// an MSAL client, as it comes to Replace and Export. Its fields belong to the
// call that has locked it.
type clientMemory struct {
	sem chan struct{}

	incompatible bool // refused an empty cache: not of the shared format, left alone for good
	initialized  bool // took an empty cache

	signOuts replica.SignOuts
	replica  *replica.Replica // of a Cache
	others   othersOfCache    // of a Cache
	users    users            // of a Partitioned

	removals *removals // of the Cache or Partitioned
	told     uint64    // how many of them the replicas know
}

// newClientMemory returns what is known of a new in-memory cache, which no removal
// of r before this one concerns.
func newClientMemory(r *removals) *clientMemory {
	m := &clientMemory{sem: make(chan struct{}, 1), removals: r, told: r.count()}
	m.replica = replica.New(&m.signOuts, "")
	return m
}

// tell tells the replicas who was signed out in this process since the last call. They
// would see it by themselves only if the account was stored, and nobody has signed in
// since.
func (m *clientMemory) tell(s *settings) {
	x, n := m.removals.since(m.told)
	if n == m.told {
		return
	}
	m.told = n
	now := s.now()
	m.replica.SignedOut(x, now)
	for _, of := range m.users.lru {
		of.replica.SignedOut(x, now)
	}
}

// lock waits until no other call has the memory, or until ctx ends.
func (m *clientMemory) lock(ctx context.Context, s *settings) error {
	select {
	case m.sem <- struct{}{}:
		return nil
	default: // only those that wait need a deadline
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	select {
	case m.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *clientMemory) unlock() { <-m.sem }

// removals are the Deletes and SignOuts of a Cache or a Partitioned, for its in-memory
// caches. It is safe for concurrent use.
type removals struct {
	mu       sync.Mutex
	n        uint64
	all      uint64                        // the last one that removed everything, counted from 1
	accounts map[tokencache.Account]uint64 // the last one of each account
}

// maxRemovals is how many accounts are remembered: the last ones to be signed out.
const maxRemovals = 1024

func (r *removals) add(x replica.Removed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if x.All {
		r.all, r.accounts = r.n, nil
		return
	}
	if len(r.accounts) >= maxRemovals {
		maps.DeleteFunc(r.accounts, func(_ tokencache.Account, at uint64) bool { return at+maxRemovals/2 < r.n })
	}
	if r.accounts == nil {
		r.accounts = map[tokencache.Account]uint64{}
	}
	for _, a := range x.Accounts {
		r.accounts[a] = r.n
	}
}

// everything returns a number that changes whenever everything is removed.
func (r *removals) everything() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// count returns how many removals there were.
func (r *removals) count() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// since returns what was removed after the first n removals, and how many there
// are now.
func (r *removals) since(n uint64) (x replica.Removed, now uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == n {
		return x, n
	}
	x.All = r.all > n
	for a, at := range r.accounts {
		if at > n {
			x.Accounts = append(x.Accounts, a)
		}
	}
	return x, r.n
}

// othersOfCache are the others of an in-memory cache of a Cache.
type othersOfCache struct {
	removals    *removals
	known, seen uint64 // how many removals removed and signedOutNow know
}

func (o *othersOfCache) removed() (x replica.Removed) {
	x, o.known = o.removals.since(o.known)
	return x
}

func (o *othersOfCache) signedOut() replica.Removed { return o.removed() }

func (o *othersOfCache) signedOutNow(bool) (x replica.Removed) {
	x, o.seen = o.removals.since(o.seen)
	return x
}

// alone does not wait: a Cache has no outbox.
func (*othersOfCache) alone(context.Context) (end func(), err error) { return func() {}, nil }

func (*othersOfCache) stored() {}

func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan, reflect.Interface, reflect.UnsafePointer:
		return r.IsNil()
	}
	return false
}
