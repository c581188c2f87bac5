package persistence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/replica"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/within"
)

// Leaser is an ability of a [Persistence] that several machines share: one of
// them at a time can have its lease. [Partitioned.Exclusive] uses it so that one
// server refreshes an account while the others wait.
//
// A lease only saves work. It ends by itself, and a store may forget it, as
// Redis does when a replica takes over. What protects the data is the revision
// that SaveIf names: a holder whose lease has ended overwrites nothing.
type Leaser interface {
	// Lease gives the lease to owner for d from now, by the store's clock, unless
	// another owner has it, and reports whether owner has it. It does not wait for
	// another owner. An owner that has the lease gets it for d from now. Where
	// nothing is stored, a store may report true and keep nothing.
	Lease(ctx context.Context, owner string, d time.Duration) (bool, error)
	// Release ends the lease if owner has it. Otherwise it does nothing.
	Release(ctx context.Context, owner string) error
}

// MaxTurn is how long a turn of [Partitioned.Exclusive] lasts at most.
const MaxTurn = 10 * time.Second

// The wait between two questions for a lease that another server has, on average,
// and how long it may take to give one back.
const (
	leasePoll    = 20 * time.Millisecond
	leaseRelease = time.Second
)

// Exclusive runs fn while no other Exclusive of this Partitioned runs one for the
// same account. Put it around what a request does to get a token:
//
//	err := partitioned.Exclusive(r.Context(), id, func(ctx context.Context) error {
//		account, err := client.Account(ctx, id)
//		if err != nil {
//			return err
//		}
//		result, err = client.AcquireTokenSilent(ctx, scopes, confidential.WithSilentAccount(account))
//		return err
//	})
//
// Without it, each tab of a user whose token has expired refreshes it, and a
// provider that rotates refresh tokens takes the second for a thief (RFC 9700,
// section 4.14). With it the first one refreshes, and the others find the new
// token. Those that wait hold no connection to the store.
//
// Where the store's Persistence is a [Leaser], the same holds for all servers. Where
// it is a [NamedLocker] instead, or [WithLockFile] is given, it holds for all
// processes that share the locks, and each account leaves a small lock file. A lease
// or lock is asked for only if an access token of the account is missing or about to
// expire, so that other requests cost nothing more; fn must therefore use the ctx
// that it is given. A refresh for scopes that the account never had a token for,
// while all its other tokens are good, is exclusive within this process only. With
// any other store, each process may refresh once.
//
// Exclusive prevents double work, and never prevents work that has to be done. A turn
// ends after [MaxTurn] even if fn has not returned. If ctx has no deadline, or if another
// server has the lease, fn runs without the turn after that time. If the store fails to
// give a lease or lock, fn runs at once, and the failure is logged. Exclusive returns
// without running fn only if ctx ends while it waits: with ErrLockTimeout, which is also
// ctx's error.
//
// fn must not call Exclusive for the same account. Its error is returned as it is.
func (p *Partitioned) Exclusive(ctx context.Context, homeAccountID string, fn func(context.Context) error) error {
	if homeAccountID == "" {
		return refuse("lock")
	}
	waiting, cancel := within.Deadline(ctx, MaxTurn)
	end, err := p.turns.take(waiting, homeAccountID)
	cancel()
	switch {
	case ctx.Err() != nil:
		if err == nil {
			end()
		}
		return failure(partitioned, "lock", fmt.Errorf("%w: %w", ErrLockTimeout, ctx.Err()), "Another request of this account is getting a token; try again.")
	case err != nil:
		p.report(partitioned, "turn", "tokenkeep: another request has kept an account's turn for too long; going on without it", nil)
	default:
		defer end()
		defer time.AfterFunc(MaxTurn, end).Stop()
	}
	x := &exclusive{of: p, partition: homeAccountID}
	defer x.release(ctx)
	return fn(context.WithValue(ctx, exclusiveKey{}, x))
}

type exclusiveKey struct{}

// exclusive is a running call of Exclusive.
type exclusive struct {
	of        *Partitioned
	partition string

	mu    sync.Mutex
	asked bool // for the lease
	lease Leaser
	until time.Time // when the lease ends by itself

	unlock func() // of the named lock that stands for a lease, or nil
}

// exclusiveOf returns the call of Exclusive for the partition that ctx comes from, or
// nil.
func (p *Partitioned) exclusiveOf(ctx context.Context, partition string) *exclusive {
	x, _ := ctx.Value(exclusiveKey{}).(*exclusive)
	if x == nil || x.of != p || x.partition != partition {
		return nil
	}
	return x
}

// take takes the store's lease, or the lock that stands for it, at most once. It reports
// whether the store has either: then the stored tokens may have changed while it waited,
// also if it has not got it.
func (x *exclusive) take(ctx context.Context, e *engine) bool {
	store := e.store
	l, leases := store.(Leaser)
	locks, named := e.lock.(NamedLocker)
	if !leases && !named {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.asked {
		return false
	}
	x.asked = true
	if !leases {
		x.lock(ctx, e, locks)
		return true
	}
	// Within this process there are turns. So all of it is one owner, and does not wait
	// for a lease that it could not give back.
	until := time.Now().Add(MaxTurn)
	for {
		bounded, cancel := x.of.bounded(ctx)
		x.until = time.Now().Add(MaxTurn)
		got, err := l.Lease(bounded, x.of.owner, MaxTurn)
		cancel()
		switch {
		case err != nil:
			x.lease = l // it may be ours all the same
			x.of.report(Describe(store), "lease", "tokenkeep: cannot keep other servers from refreshing an account; going on without that", err)
			return true
		case got:
			x.lease = l
			x.of.worked("lease")
			return true
		case time.Now().After(until):
			x.of.report(Describe(store), "turn", "tokenkeep: another server has kept an account's lease for too long; going on without it", nil)
			return true
		case !within.Sleep(ctx, leasePoll):
			return true
		}
	}
}

// lock takes the account's named lock, for MaxTurn at most. The caller has locked x.
func (x *exclusive) lock(ctx context.Context, e *engine, locks NamedLocker) {
	bounded, cancel := context.WithTimeout(ctx, MaxTurn)
	defer cancel()
	unlock, err := locks.LockName(bounded, "turn of "+x.partition)
	switch {
	case ctx.Err() != nil && err != nil:
	case errors.Is(err, ErrLockTimeout):
		e.report("turn", "tokenkeep: another process has kept an account's turn for too long; going on without it", nil)
	case err != nil:
		e.report("lease", "tokenkeep: cannot keep other processes from refreshing an account; going on without that", err)
	default:
		x.of.worked("lease")
		once := sync.OnceFunc(func() { e.unlock(unlock) })
		timer := time.AfterFunc(MaxTurn, once)
		x.unlock = func() { timer.Stop(); once() }
	}
}

// release gives the lease back, also for a caller whose context has ended. If
// that fails, the lease ends by itself.
func (x *exclusive) release(ctx context.Context) {
	x.mu.Lock()
	l, unlock := x.lease, x.unlock
	if !time.Now().Before(x.until) {
		l = nil // another request may have it by now
	}
	x.lease, x.unlock = nil, nil
	x.mu.Unlock()
	if unlock != nil {
		unlock()
	}
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(x.of.timeout, leaseRelease))
	defer cancel()
	l.Release(ctx, x.of.owner) //nolint:errcheck // it ends by itself
}

// due reports whether MSAL will probably ask for a token if a memory holds what r says:
// an access token is missing, has expired or expires within the five minutes in which
// MSAL does not use it, or its time to be refreshed has come.
func due(r *replica.Replica, now time.Time) bool {
	d := r.Doc()
	if d == nil || len(d.Sections()) == 0 {
		return false // there is nothing to ask with
	}
	tokens := d.Section("AccessToken").List()
	for i := range tokens {
		expires, refresh := tokencache.Seconds(tokens[i].Field("expires_on")), tokencache.Seconds(tokens[i].Field("refresh_on"))
		if expires <= now.Add(dueMargin).Unix() || refresh > 0 && refresh <= now.Unix() {
			return true
		}
	}
	return len(tokens) == 0
}

// dueMargin is more than the five minutes before its end in which MSAL uses no
// token.
const dueMargin = 6 * time.Minute
