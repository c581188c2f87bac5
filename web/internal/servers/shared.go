//go:build linux

package servers

import (
	"sync"
	"sync/atomic"
	"testing"
)

var (
	databases atomic.Int64

	sharedMu sync.Mutex
	shared   struct {
		postgres *Postgres
		redis    *Redis
	}

	cleanupsMu sync.Mutex
	cleanups   []func()
)

// Main runs the tests of a package, and then ends the servers that they shared.
// It is for TestMain: os.Exit(servers.Main(m)).
func Main(m *testing.M) int {
	defer func() {
		for n := len(cleanups) - 1; n >= 0; n-- {
			cleanups[n]()
		}
	}()
	return m.Run()
}

// lasting is a test whose cleanups run when all tests have ended.
type lasting struct{ testing.TB }

func (l lasting) Cleanup(f func()) {
	cleanupsMu.Lock()
	defer cleanupsMu.Unlock()
	cleanups = append(cleanups, f)
}

// SharedPostgres returns a PostgreSQL that the tests of this package share, one
// that was told not to care for its disk. The package needs a TestMain with Main.
func SharedPostgres(t testing.TB) *Postgres {
	t.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if shared.postgres == nil {
		shared.postgres = StartPostgres(lasting{t}, "fsync=off", "synchronous_commit=off", "full_page_writes=off")
	}
	return shared.postgres
}

// SharedRedis returns a Redis that the tests of this package share, one that
// keeps nothing on disk. The package needs a TestMain with Main.
func SharedRedis(t testing.TB) *Redis {
	t.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if shared.redis == nil {
		shared.redis = StartRedis(lasting{t}, "save", `""`)
	}
	return shared.redis
}
