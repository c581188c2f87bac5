package sqlstore_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

// open opens the store in the PostgreSQL database at a URL, or in the SQLite
// file at a path.
func open(where string) (func(string) persistence.Versioned, error) {
	d := sqlstore.PostgreSQL
	db, err := sql.Open("pgx", where)
	if filepath.IsAbs(where) {
		d = sqlstore.SQLite
		db, err = sqlite.Open(where)
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
