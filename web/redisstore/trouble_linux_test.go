package redisstore_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
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
	"github.com/tokenkeep/tokenkeep/web/redisstore"
)

// planted is saved in every test of trouble, and is in no error.
const planted = `{"secret":"planted-8b1d4e7f20c95a63"}`

// requireNoSecret looks for the planted secret, in several spellings, in all
// that an error shows.
func requireNoSecret(t *testing.T, err error) {
	t.Helper()
	core := []byte("planted-8b1d4e7f20c95a63")
	for e := err; e != nil; e = errors.Unwrap(e) {
		for _, format := range []string{"%v", "%+v", "%#v"} {
			text := strings.ToLower(fmt.Sprintf(format, e))
			for _, spelling := range []string{string(core), hex.EncodeToString(core), base64.StdEncoding.EncodeToString([]byte(planted)), strings.Trim(fmt.Sprint(core), "[]")} {
				require.NotContains(t, text, strings.ToLower(spelling))
			}
		}
	}
}

// requireTrouble checks the error of a server in trouble: a class, words that
// say what is wrong, a remedy.
func requireTrouble(t *testing.T, err error, says ...string) {
	t.Helper()
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	requireNoSecret(t, err)
	e, ok := errors.AsType[*persistence.Error](err)
	require.True(t, ok)
	require.Equal(t, "redis", e.Backend)
	require.NotEmpty(t, e.Remedy)
	for _, s := range says {
		require.ErrorContains(t, err, s)
	}
}

func requireHolds(t *testing.T, p persistence.Persistence, want string) {
	t.Helper()
	data, err := p.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, string(data))
}

func save(t *testing.T, p persistence.Versioned, data string) (rev string) {
	t.Helper()
	rev, err := p.Revision(t.Context())
	require.NoError(t, err)
	rev, err = p.SaveIf(t.Context(), []byte(data), rev)
	require.NoError(t, err)
	return rev
}

func TestServerDown(t *testing.T) {
	r := servers.StartRedis(t, "appendonly", "yes", "appendfsync", "always")
	a := newStore(t, r.Client(func(o *redis.Options) { o.MaxRetries, o.DialerRetries = -1, 1 }), nil).Account("alice")
	rev := save(t, a, planted)
	r.Kill()

	_, err := a.Revision(t.Context())
	requireTrouble(t, err, "connection refused")
	_, _, err = a.LoadRevision(t.Context())
	requireTrouble(t, err)
	_, err = a.SaveIf(t.Context(), []byte(planted+" "), rev)
	requireTrouble(t, err, "whether it was done is not known")
	requireTrouble(t, a.DeleteIf(t.Context(), rev))
	requireTrouble(t, a.Save(t.Context(), []byte(planted)))

	r.Start()
	servers.Eventually(t, "the client has noticed", func() bool { _, err := a.Revision(t.Context()); return err == nil })
	requireHolds(t, a, planted)
	_, err = a.SaveIf(t.Context(), []byte("new"), rev)
	require.NoError(t, err)
}

// The client would wait for ever, but for the context of each call.
func TestServerHangs(t *testing.T) {
	r := servers.StartRedis(t)
	a := newStore(t, r.Client(func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout, o.MaxRetries = -1, -1, -1 }), nil).Account("alice")
	rev := save(t, a, planted)
	resume := r.Pause()
	for name, call := range map[string]func(context.Context) error{
		"Revision":     func(ctx context.Context) error { _, err := a.Revision(ctx); return err },
		"LoadRevision": func(ctx context.Context) error { _, _, err := a.LoadRevision(ctx); return err },
		"SaveIf":       func(ctx context.Context) error { _, err := a.SaveIf(ctx, []byte(planted+" "), rev); return err },
		"DeleteIf":     func(ctx context.Context) error { return a.DeleteIf(ctx, "other") },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := call(ctx)
		cancel()
		requireTrouble(t, err, "no answer in time")
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
		requireNoSecret(t, err)
	}
	resume()
	data, err := a.Load(t.Context())
	require.NoError(t, err)
	require.Contains(t, []string{planted, planted + " "}, string(data), "the old value or the new one, whole")
}

// A Save whose caller gave up arrives when another one has succeeded.
func TestLateSaveOverwritesNothing(t *testing.T) {
	r := servers.StartRedis(t)
	slow := newStore(t, r.Client(func(o *redis.Options) { o.ReadTimeout, o.MaxRetries = -1, -1 }), nil).Account("alice")
	rev := save(t, slow, "old")
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
	requireHolds(t, slow, "new")
}

func TestReadOnlyReplica(t *testing.T) {
	t.Parallel()
	master := servers.StartRedis(t)
	host, port, _ := strings.Cut(master.Addr, ":")
	replica := servers.StartRedis(t, "replicaof", host+" "+port, "repl-diskless-sync-delay", "0")
	rev := save(t, newStore(t, master.Client(), nil).Account("alice"), planted)
	client := replica.Client(func(o *redis.Options) { o.MaxRetries = -1 })
	a := newStore(t, client, nil).Account("alice")
	servers.Eventually(t, "the replica has it", func() bool {
		now, err := a.Revision(t.Context())
		return err == nil && now == rev
	})
	// Renewing its time to live cannot work, and does not matter.
	require.NoError(t, master.Client().PExpire(t.Context(), "tokenkeep:alice", time.Hour).Err())
	servers.Eventually(t, "the replica has the time to live", func() bool { return client.PTTL(t.Context(), "tokenkeep:alice").Val() <= time.Hour })
	requireHolds(t, a, planted)

	_, err := a.SaveIf(t.Context(), []byte(planted+" "), rev)
	requireTrouble(t, err, "read-only replica", "nothing was changed", "Connect to the master")
	requireTrouble(t, a.DeleteIf(t.Context(), rev), "read-only replica", "nothing was changed")
	requireHolds(t, a, planted)
}

func TestServerFull(t *testing.T) {
	r := servers.StartRedis(t)
	a := newStore(t, r.Client(), nil).Account("alice")
	rev := save(t, a, planted)
	require.NoError(t, r.Client().ConfigSet(t.Context(), "maxmemory", "1").Err())
	_, err := a.SaveIf(t.Context(), []byte(planted+" "), rev)
	requireTrouble(t, err, "full", "nothing was changed", "more memory")
	now, err := a.Revision(t.Context())
	require.NoError(t, err)
	require.Equal(t, rev, now)
	requireHolds(t, a, planted)
	require.NoError(t, a.DeleteIf(t.Context(), rev), "a sign-out needs no memory")

	require.NoError(t, r.Client().ConfigSet(t.Context(), "maxmemory", "0").Err())
	save(t, a, planted)
}

func TestServerCannotWriteItsDisk(t *testing.T) {
	r := servers.StartRedis(t)
	c := r.Client()
	a := newStore(t, c, nil).Account("alice")
	rev := save(t, a, planted)
	dir, err := c.ConfigGet(t.Context(), "dir").Result()
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir["dir"]))
	require.NoError(t, c.BgSave(t.Context()).Err())
	servers.Eventually(t, "the snapshot has failed", func() bool {
		info, err := c.InfoMap(t.Context(), "persistence").Result()
		return err == nil && info["Persistence"]["rdb_last_bgsave_status"] == "err"
	})
	_, err = a.SaveIf(t.Context(), []byte(planted+" "), rev)
	requireTrouble(t, err, "cannot save to its disk", "nothing was changed")
	requireHolds(t, a, planted)
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
			rev := save(t, a, "old")
			proxy.LoseAnswers(1)
			now, err := a.SaveIf(t.Context(), []byte(planted), rev)
			if test.again {
				require.NoError(t, err, "it finds its own revision")
				got, err := a.Revision(t.Context())
				require.NoError(t, err)
				require.Equal(t, now, got)
			} else {
				requireTrouble(t, err, "whether it was done is not known")
			}
			requireHolds(t, a, planted)
		})
	}
}

// Redis quotes the arguments of a command that it does not know.
func TestServerWithoutScripts(t *testing.T) {
	r := servers.StartRedis(t, "rename-command", `EVALSHA ""`, "rename-command", `EVAL ""`)
	c := r.Client()
	_, control := c.EvalSha(t.Context(), "x", []string{"k"}, planted).Result()
	require.ErrorContains(t, control, "planted-")
	a := newStore(t, c, nil).Account("alice")
	_, err := a.SaveIf(t.Context(), []byte(planted), "")
	requireTrouble(t, err, "does not know a command", "nothing was changed")
}

func TestServerRefusesTheUser(t *testing.T) {
	r := servers.StartRedis(t, "user", "default off", "user", "reader on >password ~* +@read +@connection")
	for user, says := range map[string]string{"": "wants a password", "reader": "does not permit"} {
		c := r.Client(func(o *redis.Options) { o.Username, o.Password = user, map[string]string{"reader": "password"}[user] })
		_, err := newStore(t, c, nil).Account("alice").SaveIf(t.Context(), []byte(planted), "")
		requireTrouble(t, err, says, "nothing was changed")
	}
	c := r.Client(func(o *redis.Options) { o.Username, o.Password = "reader", "planted-8b1d4e7f20c95a63" })
	_, err := newStore(t, c, nil).Account("alice").Revision(t.Context())
	requireTrouble(t, err, "refuses the user name or password")
}

func TestForeignKeys(t *testing.T) {
	r := servers.SharedRedis(t)
	c := servers.RedisClient(t, r.Addr)
	require.NoError(t, c.Set(t.Context(), "foreign:alice", planted, 0).Err())
	require.NoError(t, c.HSet(t.Context(), "foreign:bob", "revision", "r").Err())
	s := newStore(t, c, &redisstore.Options{Prefix: "foreign:"})
	_, err := s.Account("alice").Load(t.Context())
	require.ErrorContains(t, err, "something else uses it")
	_, err = s.Account("alice").SaveIf(t.Context(), []byte(planted), "")
	require.ErrorContains(t, err, "nothing was changed")
	requireNoSecret(t, err)
	require.Equal(t, planted, c.Get(t.Context(), "foreign:alice").Val())
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
		requireHolds(t, s.Account(key), key)
	}
}

// When the master dies, the sentinels make the replica one, and the store goes
// on with it.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := servers.StartSentinels(t)
	a := newStore(t, s.Client(t), nil).Account("alice")
	save(t, a, planted)
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
			requireTrouble(t, err)
		}
		return err == nil
	})
	requireHolds(t, a, "after")
	requireHolds(t, newStore(t, s.Replica.Client(), nil).Account("alice"), "after")
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
