package redisstore_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
)

func TestCheck(t *testing.T) {
	const noConfig = `CONFIG ""`
	for _, test := range []struct {
		name     string
		settings []string
		want     []string // each a part of one warning, in order
	}{
		{"as it comes", nil, []string{"loses all saves since its last snapshot"}},
		{"nothing on disk", []string{"save", `""`}, []string{"keeps nothing on disk"}},
		{"every second", []string{"appendonly", "yes"}, []string{"the last second or two"}},
		{"whenever", []string{"appendonly", "yes", "appendfsync", "no"}, []string{"the last half minute"}},
		{"always", []string{"appendonly", "yes", "appendfsync", "always"}, nil},
		{"evicting", []string{"appendonly", "yes", "appendfsync", "always", "maxmemory", "100mb", "maxmemory-policy", "volatile-lru"}, []string{"evicts sign-ins"}},
		{"evicting, without a limit", []string{"appendonly", "yes", "appendfsync", "always", "maxmemory-policy", "allkeys-lru"}, nil},
		{"full and not evicting", []string{"appendonly", "yes", "appendfsync", "always", "maxmemory", "100mb"}, nil},
		{"managed", []string{"rename-command", noConfig}, []string{"does not say whether it takes snapshots"}},
		{"managed, with a file", []string{"appendonly", "yes", "rename-command", noConfig}, []string{"does not say how often"}},
		{"a replica", []string{"appendonly", "yes", "appendfsync", "always", "replicaof", "127.0.0.1 1"}, []string{"read-only replica"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			warnings, err := newStore(t, servers.StartRedis(t, test.settings...).Client(), nil).Check(t.Context())
			require.NoError(t, err)
			require.Len(t, warnings, len(test.want), "%q", warnings)
			for n, want := range test.want {
				require.Contains(t, warnings[n], want)
			}
		})
	}
}

func TestCheckAsksEveryMaster(t *testing.T) {
	t.Parallel()
	nodes := servers.StartCluster(t)
	require.NoError(t, nodes[2].Client().ConfigSet(t.Context(), "save", "").Err())
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nodes[0].Addr}, RouteRandomly: true})
	defer client.Close()
	warnings, err := newStore(t, client, nil).Check(t.Context())
	require.NoError(t, err)
	require.Len(t, warnings, 3, "%q", warnings)
	require.Contains(t, warnings[0], "keeps nothing on disk")
	require.Contains(t, warnings[1], "loses all saves since its last snapshot")
	require.Contains(t, warnings[2], "reads from replicas")
}

func TestCheckOfAServerThatIsDown(t *testing.T) {
	t.Parallel()
	r := servers.StartRedis(t)
	r.Kill()
	_, err := newStore(t, r.Client(), nil).Check(t.Context())
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = newStore(t, r.Client(), nil).Check(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestNewRefuses(t *testing.T) {
	_, err := redisstore.New(nil, nil)
	require.ErrorContains(t, err, "the client is nil")
	_, err = redisstore.New(redis.NewClient(&redis.Options{}), &redisstore.Options{TTL: 1})
	require.ErrorContains(t, err, "shorter than a minute")
}
