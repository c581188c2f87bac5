package sqlstore_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
	"github.com/tokenkeep/tokenkeep/web/sqlstore/sqlite"
)

func TestMain(m *testing.M) {
	storetest.Main(open)
	os.Exit(servers.Main(m))
}

// open opens the store in the PostgreSQL database at a URL, in the SQLite file at a
// path, or in a MySQL database that is named as its driver wants it.
func open(where string) (func(string) persistence.Versioned, error) {
	d := sqlstore.PostgreSQL
	db, err := sql.Open("pgx", where)
	if filepath.IsAbs(where) {
		d = sqlstore.SQLite
		db, err = sqlite.Open(where)
	} else if strings.Contains(where, "@tcp(") {
		d = sqlstore.MySQL
		db, err = sql.Open("mysql", where)
	}
	if err != nil {
		return nil, err
	}
	s, err := sqlstore.New(db, d, nil)
	if err == nil {
		err = s.Migrate(context.Background())
	}
	return s.Account, err
}

func TestTwoApps(t *testing.T) {
	t.Parallel()
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		pg := servers.SharedPostgres(t)
		storetest.TwoApps(t, open, func(t *testing.T) string { return pg.URL(pg.NewDatabase(t)) })
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		storetest.TwoApps(t, open, func(t *testing.T) string { return filepath.Join(t.TempDir(), "app.db") })
	})
}

func TestConditionKeepsUpdates(t *testing.T) {
	pg := servers.SharedPostgres(t)
	for _, where := range []string{pg.URL(pg.NewDatabase(t)), filepath.Join(t.TempDir(), "app.db")} {
		account, err := open(where)
		require.NoError(t, err)
		storetest.LostWithout(t, account)
	}
}

func TestOneRefresh(t *testing.T) {
	pg := servers.SharedPostgres(t)
	for name, where := range map[string]string{"PostgreSQL": pg.URL(pg.NewDatabase(t)), "SQLite": filepath.Join(t.TempDir(), "app.db")} {
		t.Run(name, func(t *testing.T) {
			storetest.OneRefresh(t, func(t *testing.T) func(string) persistence.Versioned {
				account, err := open(where)
				require.NoError(t, err)
				return account
			})
		})
	}
}

// Somebody forgot a transaction that has Alice's row locked. Her requests wait in
// turn, with one connection; the others are for other users.
func TestALockedRowKeepsOnePoolConnection(t *testing.T) {
	pg := servers.SharedPostgres(t)
	for name, exclusive := range map[string]bool{"in turn": true, "not in turn, the control": false} {
		t.Run(name, func(t *testing.T) {
			database := pg.NewDatabase(t)
			url := pg.URL(database)
			db, other := servers.OpenPostgres(t, url), servers.OpenPostgres(t, url)
			db.SetMaxOpenConns(3)
			s := newStore(t, db, sqlstore.PostgreSQL, nil)
			p, err := persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) { return s.Account(key), nil },
				persistence.WithLogger(slog.New(slog.DiscardHandler)))
			require.NoError(t, err)
			storetest.Save(t, s.Account("alice"), "{}")
			storetest.Save(t, s.Account("bob"), "{}")
			tx, err := other.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			defer tx.Rollback()
			_, err = tx.ExecContext(t.Context(), `SELECT 1 FROM tokenkeep_accounts WHERE account = 'alice' FOR UPDATE`)
			require.NoError(t, err)

			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					save := func(ctx context.Context) error { return s.Account("alice").Save(ctx, []byte("{}")) }
					if exclusive {
						p.Exclusive(ctx, "alice", save) //nolint:errcheck // it is cancelled
					} else {
						save(ctx) //nolint:errcheck // it is cancelled
					}
				})
			}
			want := 1
			if !exclusive {
				want = 3 // the whole pool
			}
			servers.Eventually(t, "they wait", func() bool {
				var n int
				require.NoError(t, other.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1`, database).Scan(&n))
				return n == want
			})
			brief, end := context.WithTimeout(t.Context(), time.Minute)
			if !exclusive {
				brief, end = context.WithTimeout(t.Context(), 500*time.Millisecond)
			}
			_, err = s.Account("bob").Load(brief)
			end()
			if exclusive {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			cancel()
			wg.Wait()
		})
	}
}

func TestPostgreSQLConformance(t *testing.T) {
	t.Parallel()
	pg := servers.SharedPostgres(t)
	url := pg.URL(pg.NewDatabase(t))
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		opts := &sqlstore.Options{Table: "t" + strings.ToLower(rand.Text())}
		return func() (persistence.Persistence, error) {
			return newStore(t, servers.OpenPostgres(t, url), sqlstore.PostgreSQL, opts).Account("alice"), nil
		}
	}, &persistencetest.Options{MaxSize: sqlstore.MaxSize})
}

func TestPostgreSQLMigratesAnEarlierTable(t *testing.T) {
	pg := servers.SharedPostgres(t)
	migratesAnEarlierTable(t, servers.OpenPostgres(t, pg.URL(pg.NewDatabase(t))), sqlstore.PostgreSQL, `CREATE TABLE tokenkeep_accounts (
		account text COLLATE "C" PRIMARY KEY, revision text NOT NULL, data bytea NOT NULL, expires bigint NOT NULL)`)
}
