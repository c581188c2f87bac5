//go:build linux

package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

const redisReady = "Ready to accept connections"

// Redis is a Redis server.
type Redis struct {
	Addr   string
	proc   *process
	t      testing.TB
	config string
}

// StartRedis starts a Redis that has its default configuration, but for the
// settings, pairs of a name and a value: "appendonly", "yes" and so on.
func StartRedis(t testing.TB, settings ...string) *Redis {
	t.Helper()
	need(t, "redis-server", "redis-server")
	addr := address(16379)
	host, port, _ := net.SplitHostPort(addr)
	dir := folder(t)
	config := fmt.Sprintf("bind %s\nbind-source-addr %[1]s\nport %s\nprotected-mode no\ndir %s\n", host, port, dir)
	for n := 0; n+1 < len(settings); n += 2 {
		config += settings[n] + " " + settings[n+1] + "\n"
	}
	file := filepath.Join(dir, "redis.conf")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	r := &Redis{Addr: addr, t: t, config: file}
	r.Start()
	return r
}

// Start starts the server again after Kill, with the same folder and address.
func (r *Redis) Start() {
	r.t.Helper()
	r.proc = start(r.t, redisReady, 0, "redis-server", r.config)
}

// Kill ends the server with SIGKILL.
func (r *Redis) Kill() { r.proc.kill() }

// Pause makes the server hang.
func (r *Redis) Pause() (resume func()) { return r.proc.pause(r.t) }

// Client returns a client of the server, with the settings that f makes.
func (r *Redis) Client(f ...func(*redis.Options)) *redis.Client {
	return RedisClient(r.t, r.Addr, f...)
}

// RedisClient returns a client of a server.
func RedisClient(t testing.TB, addr string, f ...func(*redis.Options)) *redis.Client {
	o := &redis.Options{Addr: addr}
	for _, f := range f {
		f(o)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// Sentinels are a master with one replica, and the three sentinels that watch
// them under the name "main".
type Sentinels struct {
	Master, Replica *Redis
	Addrs           []string // of the sentinels
}

// StartSentinels starts a master, a replica and three sentinels, and waits
// until they know of each other. A master that does not answer for the time down is
// replaced by the replica, which may lack the last saves: on a busy machine also one
// that is only slow.
func StartSentinels(t testing.TB, down time.Duration) *Sentinels {
	t.Helper()
	need(t, "redis-server", "redis-server")
	s := &Sentinels{Master: StartRedis(t)}
	master, port, _ := net.SplitHostPort(s.Master.Addr)
	replica := address(16379)
	announce, _, _ := net.SplitHostPort(replica)
	s.Replica = StartRedis(t, "replicaof", master+" "+port, "replica-announce-ip", announce, "bind", announce, "bind-source-addr", announce, "repl-diskless-sync-delay", "0")
	s.Replica.Addr = replica
	Eventually(t, "the replica is in sync", func() bool {
		info, err := s.Replica.Client().InfoMap(t.Context(), "replication").Result()
		return err == nil && info["Replication"]["master_link_status"] == "up"
	})
	for range 3 {
		addr := address(26379)
		host, port, _ := net.SplitHostPort(addr)
		dir := folder(t)
		file := filepath.Join(dir, "sentinel.conf")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `bind %s
port %s
protected-mode no
dir %s
sentinel announce-ip %s
sentinel monitor main %s 16379 2
sentinel down-after-milliseconds main %d
sentinel failover-timeout main 5000
`, host, port, dir, host, master, down.Milliseconds()), 0o600))
		start(t, "+monitor master main", 0, "redis-server", file, "--sentinel")
		s.Addrs = append(s.Addrs, addr)
	}
	for _, addr := range s.Addrs {
		c := redis.NewSentinelClient(&redis.Options{Addr: addr})
		Eventually(t, "the sentinels know of each other and of the replica", func() bool {
			info, err := c.Master(t.Context(), "main").Result()
			return err == nil && info["num-slaves"] == "1" && info["num-other-sentinels"] == "2"
		})
		c.Close()
	}
	return s
}

// Client returns a client that asks the sentinels for the master.
func (s *Sentinels) Client(t testing.TB) redis.UniversalClient {
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: s.Addrs, MasterName: "main"})
	t.Cleanup(func() { c.Close() })
	return c
}

// StartCluster starts a Redis Cluster of three masters, and returns its nodes.
func StartCluster(t testing.TB) (nodes []*Redis) {
	t.Helper()
	cli := need(t, "redis-cli", "redis-tools")
	args := []string{"--cluster", "create"}
	for range 3 {
		r := StartRedis(t, "cluster-enabled", "yes")
		nodes = append(nodes, r)
		args = append(args, r.Addr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, cli, append(args, "--cluster-replicas", "0", "--cluster-yes")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, n := range nodes {
		Eventually(t, "the cluster is up", func() bool {
			info, err := n.Client().ClusterInfo(t.Context()).Result()
			return err == nil && len(info) > 16 && info[:16] == "cluster_state:ok"
		})
	}
	return nodes
}

// Eventually waits until is is true. It gives up when only a defect can be the reason.
func Eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 4*time.Minute, 10*time.Millisecond, what)
}
