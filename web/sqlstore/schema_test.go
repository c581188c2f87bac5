package sqlstore_test

import (
	"database/sql"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/web/sqlstore"
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
