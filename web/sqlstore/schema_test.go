package sqlstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
	"github.com/tokenkeep/tokenkeep/web/sqlstore/sqlite"
)

// What SCHEMA.md says is what Migrate runs.
func TestSchemaIsDocumented(t *testing.T) {
	text, err := os.ReadFile("SCHEMA.md")
	require.NoError(t, err)
	blocks := strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "```sql\n")[1:]
	for n, d := range []sqlstore.Dialect{sqlstore.PostgreSQL, sqlstore.SQLite, sqlstore.MySQL} {
		s, err := sqlstore.New(new(sql.DB), d, nil)
		require.NoError(t, err)
		documented, _, _ := strings.Cut(blocks[n], "```")
		require.Equal(t, documented, strings.Join(s.Schema(), ";\n")+";\n")
	}
	require.Len(t, blocks, 3)
}

func TestStatements(t *testing.T) {
	for d, want := range map[sqlstore.Dialect]string{
		sqlstore.PostgreSQL: `UPDATE "s"."t" SET revision = $1, data = $2, expires = $3 WHERE account = $4 AND revision = $5 AND expires > $6`,
		sqlstore.SQLite:     `UPDATE "s"."t" SET revision = ?, data = ?, expires = ? WHERE account = ? AND revision = ? AND expires > ?`,
		sqlstore.MySQL:      "UPDATE `s`.`t` SET revision = ?, data = ?, expires = ? WHERE account = ? AND revision = ? AND expires > ?",
	} {
		s, err := sqlstore.New(new(sql.DB), d, &sqlstore.Options{Table: "s.t"})
		require.NoError(t, err)
		require.Contains(t, s.Statements(), want)
		for _, statement := range append(s.Statements(), s.Schema()...) {
			require.NotContains(t, statement, "{")
			require.False(t, d == sqlstore.PostgreSQL && strings.Contains(statement, "?"), statement)
		}
	}
}

// Migrate adds to a table of an earlier version what that lacks, also in several
// processes at once, and leaves the rows alone. Check says what is missing before.
func migratesAnEarlierTable(t *testing.T, db *sql.DB, d sqlstore.Dialect, earlier string) {
	_, err := db.ExecContext(t.Context(), earlier)
	require.NoError(t, err)
	s, err := sqlstore.New(db, d, nil)
	require.NoError(t, err)
	a := s.Account("alice")
	require.NoError(t, a.Save(t.Context(), []byte("kept")))
	_, err = s.Check(t.Context())
	require.ErrorContains(t, err, "the table or a column of it is missing", "the control")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	_, err = s.Check(t.Context())
	require.NoError(t, err)
	storetest.RequireHolds(t, a, "kept")
	for _, lease := range []struct {
		owner string
		got   bool
	}{{"one", true}, {"two", false}} {
		got, err := a.(persistence.Leaser).Lease(t.Context(), lease.owner, time.Minute)
		require.NoError(t, err)
		require.Equal(t, lease.got, got, lease.owner)
	}
}

func TestSQLiteMigratesAnEarlierTable(t *testing.T) {
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "earlier.db"))
	require.NoError(t, err)
	defer db.Close()
	migratesAnEarlierTable(t, db, sqlstore.SQLite, `CREATE TABLE tokenkeep_accounts (account TEXT NOT NULL PRIMARY KEY,
		revision TEXT NOT NULL, data BLOB NOT NULL, expires INTEGER NOT NULL)`)
}

func TestNewRefuses(t *testing.T) {
	db := new(sql.DB)
	for _, table := range []string{"T", "1t", "t;", "t t", `t"`, "t`", "a.b.c", ".t", "t.", "t--", "tä", "t\n", strings.Repeat("t", 49), "x'; DROP TABLE users; --"} {
		_, err := sqlstore.New(db, sqlstore.SQLite, &sqlstore.Options{Table: table})
		require.ErrorContains(t, err, "the table's name", table)
	}
	for _, table := range []string{"", "t", "_t1", "app.t", "order", strings.Repeat("t", 48)} {
		_, err := sqlstore.New(db, sqlstore.SQLite, &sqlstore.Options{Table: table})
		require.NoError(t, err, table)
	}
	_, err := sqlstore.New(nil, sqlstore.SQLite, nil)
	require.ErrorContains(t, err, "the database is nil")
	_, err = sqlstore.New(db, 0, nil)
	require.ErrorContains(t, err, "there is no dialect 0")
	_, err = sqlstore.New(db, sqlstore.SQLite, &sqlstore.Options{TTL: time.Millisecond})
	require.ErrorContains(t, err, "shorter than a minute")
}
