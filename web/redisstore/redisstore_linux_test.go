package redisstore_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
)

func TestMain(m *testing.M) {
	storetest.Main(open)
	os.Exit(servers.Main(m))
}

// open opens the store that is at an address, and has a prefix of its own.
func open(where string) (func(string) persistence.Versioned, error) {
	addr, prefix, _ := strings.Cut(where, " ")
	s, err := redisstore.New(redis.NewClient(&redis.Options{Addr: addr}), &redisstore.Options{Prefix: prefix})
	return s.Account, err
}

func TestTwoApps(t *testing.T) {
	t.Parallel()
	storetest.TwoApps(t, open, func(t *testing.T) string { return servers.SharedRedis(t).Addr + " " + rand.Text() })
}

func TestConditionKeepsUpdates(t *testing.T) {
	s := newStore(t, servers.RedisClient(t, servers.SharedRedis(t).Addr), &redisstore.Options{Prefix: rand.Text()})
	storetest.LostWithout(t, s.Account)
}

func newStore(t testing.TB, c redis.UniversalClient, opts *redisstore.Options) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(c, opts)
	require.NoError(t, err)
	return s
}

// conform runs the conformance suite on what client returns clients of.
func conform(t *testing.T, client func(t *testing.T) redis.UniversalClient) {
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		key := rand.Text()
		return func() (persistence.Persistence, error) {
			return newStore(t, client(t), nil).Account(key), nil
		}
	}, &persistencetest.Options{MaxSize: redisstore.MaxSize})
}

func TestConformance(t *testing.T) {
	r := servers.SharedRedis(t)
	conform(t, func(t *testing.T) redis.UniversalClient { return servers.RedisClient(t, r.Addr) })
}

// A client that obeys deadlines is called without a goroutine for each call.
func TestConformanceOfAClientThatObeysContexts(t *testing.T) {
	r := servers.SharedRedis(t)
	conform(t, func(t *testing.T) redis.UniversalClient {
		return servers.RedisClient(t, r.Addr, func(o *redis.Options) { o.ContextTimeoutEnabled = true })
	})
}

func TestOneRefresh(t *testing.T) {
	opts := &redisstore.Options{Prefix: rand.Text()}
	storetest.OneRefresh(t, func(t *testing.T) func(string) persistence.Versioned {
		return newStore(t, servers.RedisClient(t, servers.SharedRedis(t).Addr), opts).Account
	})
}

func TestSentinelConformance(t *testing.T) {
	t.Parallel()
	s := servers.StartSentinels(t, time.Minute)
	conform(t, func(t *testing.T) redis.UniversalClient { return s.Client(t) })
}

func TestClusterConformance(t *testing.T) {
	t.Parallel()
	nodes := servers.StartCluster(t)
	conform(t, func(t *testing.T) redis.UniversalClient {
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nodes[0].Addr}})
		t.Cleanup(func() { c.Close() })
		return c
	})
}
