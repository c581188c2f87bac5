package sqlstore_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
	"github.com/tokenkeep/tokenkeep/web/sqlstore/sqlite"
)

func openSQLite(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sqlite.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// newStore returns a Store whose table is there.
func newStore(t *testing.T, db *sql.DB, d sqlstore.Dialect, opts *sqlstore.Options) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.New(db, d, opts)
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

func TestSQLiteConformance(t *testing.T) {
	t.Parallel()
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		path := filepath.Join(t.TempDir(), "app.db")
		return func() (persistence.Persistence, error) {
			return newStore(t, openSQLite(t, path), sqlstore.SQLite, nil).Account("alice"), nil
		}
	}, &persistencetest.Options{MaxSize: sqlstore.MaxSize})
}
