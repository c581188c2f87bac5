package sqlstore_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
	"github.com/tokenkeep/tokenkeep/web/sqlstore/sqlite"
)

func exec(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err)
}

// testNoTable is what a store says whose table was not made, or was dropped.
func testNoTable(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
	s, err := sqlstore.New(db, d, nil)
	require.NoError(t, err)
	a := s.Account("alice")
	_, err = a.Revision(t.Context())
	storetest.RequireTrouble(t, "sql", err, "the table or a column of it is missing", "Migrate")
	_, err = a.SaveIf(t.Context(), []byte(storetest.Planted), "")
	storetest.RequireTrouble(t, "sql", err, "nothing was changed")
	_, err = s.DeleteExpired(t.Context(), 1)
	storetest.RequireTrouble(t, "sql", err)
	_, err = s.Check(t.Context())
	storetest.RequireTrouble(t, "sql", err)
	for range 2 {
		require.NoError(t, s.Migrate(t.Context()))
		storetest.Save(t, a, storetest.Planted)
	}
	_, err = s.Check(t.Context())
	require.NoError(t, err)
}

func TestSQLiteNoTable(t *testing.T) {
	testNoTable(t, openSQLite(t, filepath.Join(t.TempDir(), "app.db")), sqlstore.SQLite)
}

func TestSQLiteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a %3f?#ü", "app.db")
	_, err := sqlite.Open(path)
	require.ErrorContains(t, err, "See whether the folder exists")
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	s := newStore(t, openSQLite(t, path), sqlstore.SQLite, nil)
	storetest.Save(t, s.Account("alice"), storetest.Planted)
	warnings, err := s.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, warnings)
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, files, 3) // with the log and its index
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		if filepath.Separator == '/' {
			require.Equal(t, os.FileMode(0o600), info.Mode(), f.Name())
		}
	}
	// What was deleted is not in the file any more.
	db := openSQLite(t, path)
	exec(t, db, `PRAGMA wal_checkpoint(TRUNCATE)`)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(text), "planted-")
	require.NoError(t, s.Account("alice").Delete(t.Context()))
	exec(t, db, `PRAGMA wal_checkpoint(TRUNCATE)`)
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(text), "planted-")
}

func TestSQLiteCheckWarns(t *testing.T) {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "app.db")+"?_pragma=synchronous(NORMAL)")
	require.NoError(t, err)
	defer db.Close()
	warnings, err := newStore(t, db, sqlstore.SQLite, nil).Check(t.Context())
	require.NoError(t, err)
	require.Len(t, warnings, 2)
	require.Contains(t, warnings[0], "loses the last saves in a power cut")
	require.Contains(t, warnings[1], "not WAL")
}

func TestSQLiteFull(t *testing.T) {
	db := openSQLite(t, filepath.Join(t.TempDir(), "app.db"))
	a := newStore(t, db, sqlstore.SQLite, nil).Account("alice")
	rev := storetest.Save(t, a, storetest.Planted)
	exec(t, db, `PRAGMA max_page_count = 6`)
	_, err := a.SaveIf(t.Context(), []byte(storetest.Planted+strings.Repeat(" ", 100_000)), rev)
	storetest.RequireTrouble(t, "sql", err, "full", "nothing was changed")
	storetest.RequireHolds(t, a, storetest.Planted)
	exec(t, db, `PRAGMA max_page_count = 1000`)
	storetest.Save(t, a, storetest.Planted+strings.Repeat(" ", 100_000))
}

func TestSQLiteReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	s := newStore(t, openSQLite(t, path), sqlstore.SQLite, nil)
	rev := storetest.Save(t, s.Account("alice"), storetest.Planted)
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(path)+"?mode=ro")
	require.NoError(t, err)
	defer db.Close()
	reader, err := sqlstore.New(db, sqlstore.SQLite, nil)
	require.NoError(t, err)
	far := time.Now().Add(sqlstore.DefaultTTL / 2)
	reader.SetClock(func() time.Time { return far }) // renewing cannot work, and does not matter
	storetest.RequireHolds(t, reader.Account("alice"), storetest.Planted)
	_, err = reader.Account("alice").SaveIf(t.Context(), []byte(storetest.Planted), rev)
	storetest.RequireTrouble(t, "sql", err, "read-only", "nothing was changed")
	storetest.RequireTrouble(t, "sql", reader.Account("alice").DeleteIf(t.Context(), rev), "read-only")
}

func TestSQLiteDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("this is no database", 1000)), 0o600))
	s, err := sqlstore.New(openSQLite(t, path), sqlstore.SQLite, nil)
	require.NoError(t, err)
	_, err = s.Account("alice").Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrCorrupt)
	require.ErrorIs(t, s.Migrate(t.Context()), persistence.ErrCorrupt)
}

// Another program has the file locked for longer than the context lasts, and
// then not.
func TestSQLiteLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	newStore(t, openSQLite(t, path), sqlstore.SQLite, nil)
	impatient, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(0)")
	require.NoError(t, err)
	defer impatient.Close()
	for name, db := range map[string]*sql.DB{"SQLite waits": openSQLite(t, path), "the store tries again": impatient} {
		t.Run(name, func(t *testing.T) {
			s, err := sqlstore.New(db, sqlstore.SQLite, nil)
			require.NoError(t, err)
			a := s.Account(name)
			tx, err := openSQLite(t, path).BeginTx(t.Context(), nil) // immediate
			require.NoError(t, err)
			defer tx.Rollback()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err = a.SaveIf(ctx, []byte(storetest.Planted), "")
			storetest.RequireTrouble(t, "sql", err, "no answer in time")
			require.ErrorIs(t, err, context.DeadlineExceeded)

			saved := make(chan error)
			go func() { saved <- a.Save(t.Context(), []byte(storetest.Planted)) }()
			require.NoError(t, tx.Rollback())
			require.NoError(t, <-saved)
			storetest.RequireHolds(t, a, storetest.Planted)
		})
	}
}
