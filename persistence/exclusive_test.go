package persistence_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// leased is a store that has leases, as redisstore and sqlstore have.
func (r *rows) leased(_ context.Context, partition string) (persistence.Persistence, error) {
	row := r.row(partition)
	store := struct {
		persistence.Versioned
		persistence.Leaser
	}{row, row}
	if r.around != nil {
		return persistencetest.Intercept(store, r.around), nil
	}
	return store, nil
}

func leasedServer(t testing.TB, r *rows, opts ...persistence.Option) *persistence.Partitioned {
	t.Helper()
	p, err := persistence.NewPartitioned(r.leased, opts...)
	require.NoError(t, err)
	return p
}

// tab is a request of Alice's, with a client of its own, inside Exclusive or not.
func tab(ctx context.Context, client confidential.Client, p *persistence.Partitioned, exclusive bool) error {
	f := func(ctx context.Context) error {
		a, err := client.Account(ctx, entratest.Alice.HomeAccountID())
		if err != nil {
			return err
		}
		_, err = client.AcquireTokenSilent(ctx, userRead, confidential.WithSilentAccount(a))
		return err
	}
	if !exclusive {
		return f(ctx)
	}
	return p.Exclusive(ctx, entratest.Alice.HomeAccountID(), f)
}

// expired is an authority, and a store where Alice is signed in and her access
// token has to be refreshed.
func expired(t *testing.T, r *rows) *entratest.Server {
	s := msalAuthority(t, entratest.Options{})
	s.SetLifetime(time.Minute, 0)
	webSignIn(t, s, msalConfidential(t, s, r.server(t)), entratest.Alice)
	s.SetLifetime(time.Hour, 0)
	return s
}

// TestExclusiveRefreshesOnce: 64 tabs of one user, whose token has expired, send
// one request for tokens, on one server or on two.
func TestExclusiveRefreshesOnce(t *testing.T) {
	const tabs = 64
	locks := filepath.Join(t.TempDir(), "locks")
	locked := func(t testing.TB, r *rows, _ ...persistence.Option) *persistence.Partitioned {
		p, err := persistence.NewPartitioned(func(_ context.Context, partition string) (persistence.Persistence, error) {
			return struct {
				persistence.Versioned
				persistence.NamedLocker
			}{r.row(partition), persistence.NewFileLock(locks)}, nil
		})
		require.NoError(t, err)
		return p
	}
	type open = func(t testing.TB, r *rows, opts ...persistence.Option) *persistence.Partitioned
	for name, c := range map[string]struct {
		count int
		open  open
	}{
		"one server":           {1, leasedServer},
		"two servers":          {2, leasedServer},
		"two processes, locks": {2, locked},
		"two processes, WithLockFile": {2, func(t testing.TB, r *rows, _ ...persistence.Option) *persistence.Partitioned {
			return r.server(t, persistence.WithLockFile(locks+"2"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, count := new(rows), c.count
			s := expired(t, r)
			var servers []*persistence.Partitioned
			for range count {
				servers = append(servers, c.open(t, r))
			}
			held := s.Hold(entratest.GrantRefreshToken)
			var wg sync.WaitGroup
			for i := range tabs {
				p := servers[i%count]
				c := msalConfidential(t, s, p)
				wg.Go(func() {
					if err := tab(t.Context(), c, p, true); err != nil {
						t.Error(err)
					}
				})
			}
			<-held.Arrived()
			for _, p := range servers {
				for persistence.InTurn(p, entratest.Alice.HomeAccountID()) < tabs/count {
					runtime.Gosched()
				}
			}
			held.Release()
			wg.Wait()
			require.Equal(t, 1, s.Requests(entratest.GrantRefreshToken))
			require.Zero(t, s.Reuses())
			for _, p := range servers {
				require.Zero(t, persistence.InTurn(p, entratest.Alice.HomeAccountID()), "nothing is left of the turns")
			}
		})
	}
}

// TestExclusiveControl: a second tab that does not wait, or one on another server
// where the store has no leases, spends the same refresh token.
func TestExclusiveControl(t *testing.T) {
	for name, exclusive := range map[string]bool{"not in turn": false, "no lease": true} {
		t.Run(name, func(t *testing.T) {
			r := new(rows)
			s := expired(t, r)
			servers := []*persistence.Partitioned{r.server(t), r.server(t)}
			held := s.Hold(entratest.GrantRefreshToken)
			first := make(chan error, 1)
			c := msalConfidential(t, s, servers[0])
			go func() { first <- tab(t.Context(), c, servers[0], exclusive) }()
			<-held.Arrived()
			second := make(chan error, 1)
			go func() { second <- tab(t.Context(), msalConfidential(t, s, servers[1]), servers[1], exclusive) }()
			for s.Requests(entratest.GrantRefreshToken) < 2 {
				runtime.Gosched()
			}
			held.Release()
			require.Error(t, errors.Join(<-first, <-second), "one of them spent a spent token")
			require.NotZero(t, s.Reuses())
		})
	}
}

// TestExclusiveAsksForNoLeaseInVain: a request whose token is good costs what it
// costs without Exclusive.
func TestExclusiveAsksForNoLeaseInVain(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	var calls []string
	var mu sync.Mutex
	r := &rows{around: func(_ context.Context, op string, call func() error) error {
		mu.Lock()
		calls = append(calls, op)
		mu.Unlock()
		return call()
	}}
	p := leasedServer(t, r)
	webSignIn(t, s, msalConfidential(t, s, p), entratest.Alice)
	request := func() []string {
		calls = nil
		require.NoError(t, tab(t.Context(), msalConfidential(t, s, p), p, true))
		return calls
	}
	require.Equal(t, []string{"LoadRevision", "Revision"}, request())

	// The control: the same request where the token has expired.
	s.SetLifetime(time.Minute, 0)
	require.NoError(t, p.SignOut(t.Context(), entratest.Alice.HomeAccountID()))
	webSignIn(t, s, msalConfidential(t, s, p), entratest.Alice)
	require.Equal(t, []string{"LoadRevision", "Lease", "Revision", "Revision", "Revision", "SaveIf", "Release"}, request())
}

// replaceIn is what a request does of which only the hooks matter.
func replaceIn(p *persistence.Partitioned, ctx context.Context) error {
	return p.Exclusive(ctx, "alice", func(ctx context.Context) error {
		return p.Replace(ctx, new(client), cache.ReplaceHints{PartitionKey: "alice"})
	})
}

// signedInAlice stores an account whose access token is due.
func signedInAlice(t *testing.T, r *rows) {
	c := new(client)
	c.signIn("alice", "rt", 1)
	data, err := c.Marshal()
	require.NoError(t, err)
	require.NoError(t, r.row("alice").Save(t.Context(), data))
}

// hangingLocks has one lock that is free, and named ones that somebody else has.
type hangingLocks struct{}

func (*hangingLocks) Lock(context.Context) (func() error, error) {
	return func() error { return nil }, nil
}

func (*hangingLocks) LockName(ctx context.Context, _ string) (func() error, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", persistence.ErrLockTimeout, ctx.Err())
}

// TestExclusiveIsNoObstacle: whatever keeps the turn or the lease from being had,
// the work is done.
func TestExclusiveIsNoObstacle(t *testing.T) {
	t.Run("a turn ends by itself", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := new(rows).server(t, silence)
			hang, start := make(chan struct{}), time.Now()
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := p.Exclusive(t.Context(), "alice", func(context.Context) error { <-hang; return nil }); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			require.NoError(t, replaceIn(p, t.Context()))
			require.Equal(t, persistence.MaxTurn, time.Since(start))
			require.NoError(t, replaceIn(p, t.Context()))
			close(hang)
			wg.Wait()
			require.NoError(t, replaceIn(p, t.Context()))
			require.Equal(t, persistence.MaxTurn, time.Since(start), "and nobody waits any more")
		})
	})
	t.Run("a server that died has the lease", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := new(rows)
			signedInAlice(t, r)
			got, err := r.row("alice").Lease(t.Context(), "the dead", persistence.MaxTurn)
			require.NoError(t, err)
			require.True(t, got)
			start := time.Now()
			require.NoError(t, replaceIn(leasedServer(t, r, silence), t.Context()))
			require.Less(t, time.Since(start), persistence.MaxTurn+time.Second)
			require.Greater(t, time.Since(start), persistence.MaxTurn/2, "the control: it did wait")
		})
	})
	t.Run("a process that hangs has the lock", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := new(rows)
			signedInAlice(t, r)
			p, err := persistence.NewPartitioned(func(_ context.Context, partition string) (persistence.Persistence, error) {
				return struct {
					persistence.Versioned
					persistence.NamedLocker
				}{r.row(partition), &hangingLocks{}}, nil
			}, silence)
			require.NoError(t, err)
			start := time.Now()
			require.NoError(t, replaceIn(p, t.Context()))
			require.Equal(t, persistence.MaxTurn, time.Since(start))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start = time.Now()
			replaceIn(p, ctx) //nolint:errcheck // only how long it takes matters
			require.Equal(t, time.Second, time.Since(start))
		})
	})
	t.Run("the lease could not be given back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			down := true
			r := &rows{around: func(_ context.Context, op string, call func() error) error {
				if op == "Release" && down {
					return &persistence.Error{Op: "release", Backend: "test", Err: errFull}
				}
				return call()
			}}
			signedInAlice(t, r)
			one, two := leasedServer(t, r, silence), leasedServer(t, r, silence)
			require.NoError(t, replaceIn(one, t.Context()))
			down = false
			start := time.Now()
			require.NoError(t, replaceIn(one, t.Context()))
			require.Zero(t, time.Since(start), "the server that has it does not wait for itself")
			down = true
			require.NoError(t, replaceIn(one, t.Context()))
			require.NoError(t, replaceIn(two, t.Context()))
			require.Greater(t, time.Since(start), persistence.MaxTurn/2, "the control: another one does")
		})
	})
	t.Run("the lease cannot be asked for", func(t *testing.T) {
		r := &rows{around: func(_ context.Context, op string, call func() error) error {
			if op == "Lease" || op == "Release" {
				return &persistence.Error{Op: "lease", Backend: "test", Err: errFull}
			}
			return call()
		}}
		signedInAlice(t, r)
		var log bytes.Buffer
		p := leasedServer(t, r, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		require.NoError(t, replaceIn(p, t.Context()))
		require.Equal(t, 1, strings.Count(log.String(), errFull.Error()))
	})
	t.Run("nothing is stored", func(t *testing.T) {
		var leases atomic.Int64
		r := &rows{around: func(_ context.Context, op string, call func() error) error {
			if op == "Lease" {
				leases.Add(1)
			}
			return call()
		}}
		require.NoError(t, replaceIn(leasedServer(t, r), t.Context()))
		require.Zero(t, leases.Load())
	})
}

// TestExclusiveEndsWithItsContext: a request that waits stops when the context ends, and
// what it did not run is not run.
func TestExclusiveEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(rows).server(t, silence)
		hang := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := p.Exclusive(t.Context(), "alice", func(context.Context) error { <-hang; return errFull }); !errors.Is(err, errFull) {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := p.Exclusive(ctx, "alice", func(context.Context) error { t.Error("run"); return nil })
		require.ErrorIs(t, err, persistence.ErrLockTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, p.Exclusive(t.Context(), "bob", func(context.Context) error { return nil }), "another account is free")
		close(hang)
		wg.Wait()
		require.ErrorContains(t, p.Exclusive(t.Context(), "", func(context.Context) error { return nil }), "no account is named")
	})
}
