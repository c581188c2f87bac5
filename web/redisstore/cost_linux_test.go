package redisstore_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
)

// trips counts a client's round trips.
type trips struct{ atomic.Int64 }

func (n *trips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (n *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { n.Add(1); return next(ctx, cmd) }
}

func (n *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { n.Add(1); return next(ctx, cmds) }
}

func TestRoundTrips(t *testing.T) {
	c := servers.StartRedis(t).Client()
	a := newStore(t, c, nil).Account("alice")
	storetest.Save(t, a, "the first, which also loads the script")
	require.ErrorIs(t, a.DeleteIf(t.Context(), "other"), persistence.ErrConflict)

	var n trips
	c.AddHook(&n)
	count := func(want int64, call func() error) {
		t.Helper()
		n.Store(0)
		require.NoError(t, call())
		require.Equal(t, want, n.Load())
	}
	var rev string
	count(1, func() (err error) { rev, err = a.Revision(t.Context()); return err })
	count(1, func() error { _, _, err := a.LoadRevision(t.Context()); return err })
	count(1, func() error { _, err := a.Load(t.Context()); return err })
	count(1, func() (err error) { rev, err = a.SaveIf(t.Context(), []byte("new"), rev); return err })
	count(2, func() error { return a.Save(t.Context(), []byte("newer")) })
	count(2, func() error { return a.Delete(t.Context()) })
	count(1, func() error { return a.Delete(t.Context()) })

	// A server that was restarted has forgotten the scripts.
	require.NoError(t, c.ScriptFlush(t.Context()).Err())
	count(2, func() (err error) { rev, err = a.SaveIf(t.Context(), []byte("again"), ""); return err })
	count(1, func() error { _, err := a.SaveIf(t.Context(), []byte("again"), rev); return err })
}

// What is documented of the keys.
func TestKeyFormat(t *testing.T) {
	c := servers.StartRedis(t).Client()
	rev := storetest.Save(t, newStore(t, c, nil).Account("uid.utid"), "data")
	require.Equal(t, map[string]string{"revision": rev, "data": "data"}, c.HGetAll(t.Context(), "tokenkeep:uid.utid").Val())
	storetest.Save(t, newStore(t, c, &redisstore.Options{Prefix: "app1/"}).Account("uid.utid"), "other")
	require.ElementsMatch(t, []string{"tokenkeep:uid.utid", "app1/uid.utid"}, c.Keys(t.Context(), "*").Val())
}

func TestTimeToLive(t *testing.T) {
	const ttl = 1000 * time.Hour
	c := servers.StartRedis(t).Client()
	a := newStore(t, c, &redisstore.Options{TTL: ttl}).Account("alice")
	left := func() time.Duration { return c.PTTL(t.Context(), "tokenkeep:alice").Val() }
	read := func() {
		t.Helper()
		_, err := a.Revision(t.Context())
		require.NoError(t, err)
	}
	near := func(want time.Duration) {
		t.Helper()
		require.InDelta(t, want.Hours(), left().Hours(), 1)
	}
	const fresh = ttl + ttl/10
	storetest.Save(t, a, "data")
	near(fresh)
	c.PExpire(t.Context(), "tokenkeep:alice", 1005*time.Hour)
	read()
	near(1005 * time.Hour) // used again so soon, it costs no write
	c.PExpire(t.Context(), "tokenkeep:alice", 995*time.Hour)
	read()
	near(fresh)
	c.PExpire(t.Context(), "tokenkeep:alice", time.Hour)
	storetest.RequireHolds(t, a, "data")
	near(fresh)
	c.Persist(t.Context(), "tokenkeep:alice")
	read()
	near(fresh)
	c.PExpire(t.Context(), "tokenkeep:alice", 1050*time.Hour)
	storetest.Save(t, a, "new")
	near(fresh)

	c.PExpireAt(t.Context(), "tokenkeep:alice", time.Unix(1, 0))
	_, err := a.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	read()
	require.Zero(t, c.Exists(t.Context(), "tokenkeep:alice").Val(), "a read makes nothing")

	require.Greater(t, redisstore.DefaultTTL, 90*24*time.Hour)
}
