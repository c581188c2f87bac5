package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
)

func TestServerDown(t *testing.T) {
	r := servers.StartRedis(t, "appendonly", "yes", "appendfsync", "always")
	a := newStore(t, r.Client(func(o *redis.Options) { o.MaxRetries = -1 }), nil).Account("alice")
	rev := storetest.Save(t, a, storetest.Planted)
	r.Kill()

	_, err := a.Revision(t.Context())
	storetest.RequireTrouble(t, "redis", err, "connection refused")
	_, _, err = a.LoadRevision(t.Context())
	storetest.RequireTrouble(t, "redis", err)
	_, err = a.SaveIf(t.Context(), []byte(storetest.Planted+" "), rev)
	storetest.RequireTrouble(t, "redis", err, "whether it was done is not known")
	storetest.RequireTrouble(t, "redis", a.DeleteIf(t.Context(), rev))
	storetest.RequireTrouble(t, "redis", a.Save(t.Context(), []byte(storetest.Planted)))

	r.Start()
	servers.Eventually(t, "the client has noticed", func() bool { _, err := a.Revision(t.Context()); return err == nil })
	storetest.RequireHolds(t, a, storetest.Planted)
	_, err = a.SaveIf(t.Context(), []byte("new"), rev)
	require.NoError(t, err)
}

// The client would wait for ever, but for the context of each call.
func TestServerHangs(t *testing.T) {
	r := servers.StartRedis(t)
	a := newStore(t, r.Client(func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout, o.MaxRetries = -1, -1, -1 }), nil).Account("alice")
	rev := storetest.Save(t, a, storetest.Planted)
	resume := r.Pause()
	for name, call := range map[string]func(context.Context) error{
		"Revision":     func(ctx context.Context) error { _, err := a.Revision(ctx); return err },
		"LoadRevision": func(ctx context.Context) error { _, _, err := a.LoadRevision(ctx); return err },
		"SaveIf": func(ctx context.Context) error {
			_, err := a.SaveIf(ctx, []byte(storetest.Planted+" "), rev)
			return err
		},
		"DeleteIf": func(ctx context.Context) error { return a.DeleteIf(ctx, "other") },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := call(ctx)
		cancel()
		storetest.RequireTrouble(t, "redis", err, "no answer in time")
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
		if name == "SaveIf" {
			require.ErrorContains(t, err, "whether it was done is not known")
		}

		ctx, cancel = context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- call(ctx) }()
		cancel()
		err = <-done
		require.ErrorIs(t, err, context.Canceled, name)
		storetest.RequireNoSecret(t, err)
	}
	resume()
	data, err := a.Load(t.Context())
	require.NoError(t, err)
	require.Contains(t, []string{storetest.Planted, storetest.Planted + " "}, string(data), "the old value or the new one, whole")
}

// A client that obeys deadlines is called directly, and gives up by itself.
func TestServerHangsAndTheClientObeys(t *testing.T) {
	r := servers.StartRedis(t)
	a := newStore(t, r.Client(func(o *redis.Options) { o.ContextTimeoutEnabled, o.ReadTimeout = true, time.Hour }), nil).Account("alice")
	storetest.Save(t, a, storetest.Planted)
	r.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := a.Load(ctx)
	storetest.RequireTrouble(t, "redis", err, "no answer in time")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A Save whose caller gave up arrives when another one has succeeded.
func TestLateSaveOverwritesNothing(t *testing.T) {
	r := servers.StartRedis(t)
	slow := newStore(t, r.Client(func(o *redis.Options) { o.ReadTimeout, o.MaxRetries = -1, -1 }), nil).Account("alice")
	rev := storetest.Save(t, slow, "old")
	resume := r.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := slow.SaveIf(ctx, []byte("late"), rev)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	resume()
	other := newStore(t, r.Client(), nil).Account("alice")
	require.NoError(t, other.Save(t.Context(), []byte("new")))
	// The server answers on the slow client's connections in order.
	_, err = slow.Revision(t.Context())
	require.NoError(t, err)
	storetest.RequireHolds(t, slow, "new")
}

func TestReadOnlyReplica(t *testing.T) {
	t.Parallel()
	master := servers.StartRedis(t)
	host, port, _ := strings.Cut(master.Addr, ":")
	replica := servers.StartRedis(t, "replicaof", host+" "+port, "repl-diskless-sync-delay", "0")
	rev := storetest.Save(t, newStore(t, master.Client(), nil).Account("alice"), storetest.Planted)
	client := replica.Client(func(o *redis.Options) { o.MaxRetries = -1 })
	a := newStore(t, client, nil).Account("alice")
	servers.Eventually(t, "the replica has it", func() bool {
		now, err := a.Revision(t.Context())
		return err == nil && now == rev
	})
	// Renewing its time to live cannot work, and does not matter.
	require.NoError(t, master.Client().PExpire(t.Context(), "tokenkeep:alice", time.Hour).Err())
	servers.Eventually(t, "the replica has the time to live", func() bool { return client.PTTL(t.Context(), "tokenkeep:alice").Val() <= time.Hour })
	storetest.RequireHolds(t, a, storetest.Planted)

	_, err := a.SaveIf(t.Context(), []byte(storetest.Planted+" "), rev)
	storetest.RequireTrouble(t, "redis", err, "read-only replica", "nothing was changed", "Connect to the master")
	storetest.RequireTrouble(t, "redis", a.DeleteIf(t.Context(), rev), "read-only replica", "nothing was changed")
	storetest.RequireHolds(t, a, storetest.Planted)
}

func TestServerFull(t *testing.T) {
	r := servers.StartRedis(t)
	a := newStore(t, r.Client(), nil).Account("alice")
	rev := storetest.Save(t, a, storetest.Planted)
	require.NoError(t, r.Client().ConfigSet(t.Context(), "maxmemory", "1").Err())
	_, err := a.SaveIf(t.Context(), []byte(storetest.Planted+" "), rev)
	storetest.RequireTrouble(t, "redis", err, "full", "nothing was changed", "more memory")
	now, err := a.Revision(t.Context())
	require.NoError(t, err)
	require.Equal(t, rev, now)
	storetest.RequireHolds(t, a, storetest.Planted)
	require.NoError(t, a.DeleteIf(t.Context(), rev), "a sign-out needs no memory")

	require.NoError(t, r.Client().ConfigSet(t.Context(), "maxmemory", "0").Err())
	storetest.Save(t, a, storetest.Planted)
}

func TestServerCannotWriteItsDisk(t *testing.T) {
	r := servers.StartRedis(t)
	c := r.Client()
	a := newStore(t, c, nil).Account("alice")
	rev := storetest.Save(t, a, storetest.Planted)
	dir, err := c.ConfigGet(t.Context(), "dir").Result()
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir["dir"]))
	require.NoError(t, c.BgSave(t.Context()).Err())
	servers.Eventually(t, "the snapshot has failed", func() bool {
		info, err := c.InfoMap(t.Context(), "persistence").Result()
		return err == nil && info["Persistence"]["rdb_last_bgsave_status"] == "err"
	})
	_, err = a.SaveIf(t.Context(), []byte(storetest.Planted+" "), rev)
	storetest.RequireTrouble(t, "redis", err, "cannot save to its disk", "nothing was changed")
	storetest.RequireHolds(t, a, storetest.Planted)
}

// The server saves, and its answer is lost with the connection.
func TestLostAnswer(t *testing.T) {
	for _, test := range []struct {
		name    string
		retries int
		again   bool
	}{{"the client gives up", -1, false}, {"the client sends it again", 3, true}} {
		t.Run(test.name, func(t *testing.T) {
			r := servers.StartRedis(t)
			proxy := servers.StartProxy(t, r.Addr)
			c := servers.RedisClient(t, proxy.Addr, func(o *redis.Options) { o.MaxRetries, o.PoolSize = test.retries, 1 })
			a := newStore(t, c, nil).Account("alice")
			rev := storetest.Save(t, a, "old")
			proxy.LoseAnswers(1)
			now, err := a.SaveIf(t.Context(), []byte(storetest.Planted), rev)
			if test.again {
				require.NoError(t, err, "it finds its own revision")
				got, err := a.Revision(t.Context())
				require.NoError(t, err)
				require.Equal(t, now, got)
			} else {
				storetest.RequireTrouble(t, "redis", err, "whether it was done is not known")
			}
			storetest.RequireHolds(t, a, storetest.Planted)
		})
	}
}

// Redis quotes the arguments of a command that it does not know.
func TestServerWithoutScripts(t *testing.T) {
	r := servers.StartRedis(t, "rename-command", `EVALSHA ""`, "rename-command", `EVAL ""`)
	c := r.Client()
	_, control := c.EvalSha(t.Context(), "x", []string{"k"}, storetest.Planted).Result()
	require.ErrorContains(t, control, "planted-")
	a := newStore(t, c, nil).Account("alice")
	_, err := a.SaveIf(t.Context(), []byte(storetest.Planted), "")
	storetest.RequireTrouble(t, "redis", err, "does not know a command", "nothing was changed")
}

func TestServerRefusesTheUser(t *testing.T) {
	r := servers.StartRedis(t, "user", "default off", "user", "reader on >password ~* +@read +@connection")
	for user, says := range map[string]string{"": "wants a password", "reader": "does not permit"} {
		c := r.Client(func(o *redis.Options) { o.Username, o.Password = user, map[string]string{"reader": "password"}[user] })
		_, err := newStore(t, c, nil).Account("alice").SaveIf(t.Context(), []byte(storetest.Planted), "")
		storetest.RequireTrouble(t, "redis", err, says, "nothing was changed")
	}
	c := r.Client(func(o *redis.Options) { o.Username, o.Password = "reader", "planted-8b1d4e7f20c95a63" })
	_, err := newStore(t, c, nil).Account("alice").Revision(t.Context())
	storetest.RequireTrouble(t, "redis", err, "refuses the user name or password")
}

func TestForeignKeys(t *testing.T) {
	r := servers.SharedRedis(t)
	c := servers.RedisClient(t, r.Addr)
	require.NoError(t, c.Set(t.Context(), "foreign:alice", storetest.Planted, 0).Err())
	require.NoError(t, c.HSet(t.Context(), "foreign:bob", "revision", "r").Err())
	s := newStore(t, c, &redisstore.Options{Prefix: "foreign:"})
	_, err := s.Account("alice").Load(t.Context())
	require.ErrorContains(t, err, "something else uses it")
	_, err = s.Account("alice").SaveIf(t.Context(), []byte(storetest.Planted), "")
	require.ErrorContains(t, err, "nothing was changed")
	storetest.RequireNoSecret(t, err)
	require.Equal(t, storetest.Planted, c.Get(t.Context(), "foreign:alice").Val())
	_, err = s.Account("bob").Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrCorrupt)
}

func TestKeysThatAreNone(t *testing.T) {
	s := newStore(t, servers.RedisClient(t, servers.SharedRedis(t).Addr), nil)
	for _, key := range []string{"", strings.Repeat("k", 513), "a\x00", "\xff"} {
		_, err := s.Account(key).Revision(t.Context())
		require.ErrorContains(t, err, "the account's key")
		_, err = s.Account(key).SaveIf(t.Context(), nil, "")
		require.ErrorContains(t, err, "the account's key")
		require.ErrorContains(t, s.Account(key).Delete(t.Context()), "the account's key")
	}
	for _, key := range []string{"{}", "a{b}c", "{", " ", "Ü", "A", "a", strings.Repeat("k", 512)} {
		require.NoError(t, s.Account(key).Save(t.Context(), []byte(key)))
	}
	for _, key := range []string{"A", "a", "{}"} {
		storetest.RequireHolds(t, s.Account(key), key)
	}
}

// When the master dies, the sentinels make the replica one, and the store goes
// on with it.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := servers.StartSentinels(t, 2*time.Second)
	a := newStore(t, s.Client(t), nil).Account("alice")
	storetest.Save(t, a, storetest.Planted)
	servers.Eventually(t, "the replica has it", func() bool {
		return s.Replica.Client().Exists(t.Context(), redisstore.DefaultPrefix+"alice").Val() == 1
	})
	s.Master.Kill()
	servers.Eventually(t, "saves work again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		rev, err := a.Revision(ctx)
		if err == nil && rev != "" {
			_, err = a.SaveIf(ctx, []byte("after"), rev)
		}
		if err != nil {
			storetest.RequireTrouble(t, "redis", err)
		}
		return err == nil
	})
	storetest.RequireHolds(t, a, "after")
	storetest.RequireHolds(t, newStore(t, s.Replica.Client(), nil).Account("alice"), "after")
}

// What Redis has acknowledged, it has after a SIGKILL, if it keeps an
// append-only file.
func TestSavesSurviveAKill(t *testing.T) {
	const saves = 1000
	for _, test := range []struct {
		name     string
		settings []string
		survive  bool
	}{
		{"with an append-only file", []string{"appendonly", "yes", "appendfsync", "always"}, true},
		{"with the default configuration, the control", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := servers.StartRedis(t, test.settings...)
			s := newStore(t, r.Client(), nil)
			acknowledged := make(map[string]string)
			failed := make(chan error)
			for w := range 8 {
				go func() {
					for n := w; n < saves; n += 8 {
						if err := s.Account(fmt.Sprint("user", n)).Save(t.Context(), fmt.Append(nil, "data", n)); err != nil {
							failed <- err
							return
						}
					}
					failed <- nil
				}()
			}
			for range 8 {
				require.NoError(t, <-failed)
			}
			for n := range saves {
				acknowledged[fmt.Sprint("user", n)] = fmt.Sprint("data", n)
			}
			r.Kill()
			r.Start()
			lost := 0
			for user, want := range acknowledged {
				data, err := s.Account(user).Load(t.Context())
				if errors.Is(err, persistence.ErrNotFound) {
					lost++
					continue
				}
				require.NoError(t, err)
				require.Equal(t, want, string(data))
			}
			if test.survive {
				require.Zero(t, lost)
			} else {
				require.NotZero(t, lost)
			}
			t.Logf("%d of %d acknowledged saves were lost", lost, saves)
		})
	}
}
