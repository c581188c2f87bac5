package sqlstore

import (
	"strconv"
	"strings"
)

// Dialect is a database's own SQL. There are no others than those below.
type Dialect int

// The dialects. MySQL is also MariaDB's, 10.5 or later.
const (
	PostgreSQL Dialect = iota + 1
	SQLite
	MySQL
)

// dialect holds what differs between databases. In its statements, {table} is the
// table, {name} a name made from the table's, {clock} the clock, and ? a parameter.
type dialect struct {
	quote    string
	clock    string // the database's, in milliseconds since 1970
	numbered bool   // parameters are $1, $2, …
	schema   []string
	added    []column // those of the schema that tables of earlier versions lack
	// insert adds a row. Where the account has one it changes none, or fails
	// with an error that explain knows.
	insert string
	// removeExpired removes rows that expired until a time, a number at most,
	// the oldest first. A row that is renewed meanwhile stays.
	removeExpired string
	server        bool // it has connections over a network, and a limit of them
	twice         bool // removeExpired names the time once more at the end
	settings      []setting
	explain       func(error) failure
}

// column is one that was added to the table after its first version.
type column struct{ name, definition string }

const insertUnlessThere = `INSERT INTO {table} (account, revision, data, expires) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`

var dialects = map[Dialect]*dialect{
	PostgreSQL: {
		server:   true,
		quote:    `"`,
		clock:    `(extract(epoch FROM clock_timestamp()) * 1000)::bigint`,
		numbered: true,
		schema: []string{
			`CREATE TABLE IF NOT EXISTS {table} (
    account  text COLLATE "C" PRIMARY KEY,
    revision text   NOT NULL,
    data     bytea  NOT NULL,
    expires  bigint NOT NULL, -- seconds since 1970
    lease_owner text   NOT NULL DEFAULT '',
    lease_until bigint NOT NULL DEFAULT 0 -- milliseconds since 1970
)`,
			`CREATE INDEX IF NOT EXISTS {name}_expires ON {table} (expires)`,
		},
		added:  []column{{"lease_owner", `text NOT NULL DEFAULT ''`}, {"lease_until", `bigint NOT NULL DEFAULT 0`}},
		insert: insertUnlessThere,
		removeExpired: `DELETE FROM {table} WHERE account IN
    (SELECT account FROM {table} WHERE expires <= ? ORDER BY expires LIMIT ?) AND expires <= ?`,
		twice: true,
		settings: []setting{
			{`SHOW transaction_read_only`, []string{"off"}, "The database is read-only: nothing can be saved. Connect to the primary server, with a user that may write."},
			{`SHOW fsync`, []string{"on"}, "PostgreSQL does not wait for its disk (fsync off): a power cut may damage the whole database. Set fsync on."},
			{`SHOW synchronous_commit`, []string{"on", "local", "remote_write", "remote_apply"}, "PostgreSQL loses the saves of the last moments when it is killed (synchronous_commit off). Those users sign in again. Set synchronous_commit on."},
		},
		explain: explainPostgreSQL,
	},
	SQLite: {
		quote: `"`,
		clock: `CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)`,
		schema: []string{
			`CREATE TABLE IF NOT EXISTS {table} (
    account  TEXT    NOT NULL PRIMARY KEY,
    revision TEXT    NOT NULL,
    data     BLOB    NOT NULL,
    expires  INTEGER NOT NULL, -- seconds since 1970
    lease_owner TEXT    NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0 -- milliseconds since 1970
)`,
			`CREATE INDEX IF NOT EXISTS {name}_expires ON {table} (expires)`,
		},
		added:  []column{{"lease_owner", `TEXT NOT NULL DEFAULT ''`}, {"lease_until", `INTEGER NOT NULL DEFAULT 0`}},
		insert: insertUnlessThere,
		removeExpired: `DELETE FROM {table} WHERE account IN
    (SELECT account FROM {table} WHERE expires <= ? ORDER BY expires LIMIT ?) AND expires <= ?`,
		twice: true,
		settings: []setting{
			{`PRAGMA synchronous`, []string{"2", "3"}, "SQLite loses the last saves in a power cut (synchronous is neither FULL nor EXTRA). Those users sign in again. Set it to FULL, as package sqlite does."},
			{`PRAGMA journal_mode`, []string{"wal"}, "Requests wait for each other's saves (journal_mode is not WAL). Set it to WAL, as package sqlite does."},
		},
		explain: explainSQLite,
	},
	MySQL: {
		server: true,
		quote:  "`",
		clock:  `(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)`, // UNIX_TIMESTAMP knows no summer time
		schema: []string{
			// VARBINARY: text would be compared without regard to case and
			// trailing blanks.
			`CREATE TABLE IF NOT EXISTS {table} (
    account  VARBINARY(512) NOT NULL PRIMARY KEY,
    revision VARBINARY(64)  NOT NULL,
    data     LONGBLOB       NOT NULL,
    expires  BIGINT         NOT NULL, -- seconds since 1970
    lease_owner VARBINARY(64) NOT NULL DEFAULT '',
    lease_until BIGINT        NOT NULL DEFAULT 0, -- milliseconds since 1970
    INDEX {name}_expires (expires)
) ENGINE=InnoDB`,
		},
		added: []column{{"lease_owner", `VARBINARY(64) NOT NULL DEFAULT ''`}, {"lease_until", `BIGINT NOT NULL DEFAULT 0`}},
		// Not IGNORE: it cuts data off where the column is too short.
		insert:        `INSERT INTO {table} (account, revision, data, expires) VALUES (?, ?, ?, ?)`,
		removeExpired: `DELETE FROM {table} WHERE expires <= ? ORDER BY expires LIMIT ?`,
		settings: []setting{
			{`SELECT @@read_only`, []string{"0"}, "The database is read-only: nothing can be saved. Connect to the primary server."},
			{`SELECT @@innodb_flush_log_at_trx_commit`, []string{"1"}, "The database loses the saves of the last second or so when it or its machine is killed (innodb_flush_log_at_trx_commit is not 1). Those users sign in again. Set it to 1."},
		},
		explain: explainMySQL,
	},
}

func (d *dialect) named(statement, table string) string {
	name := table[strings.LastIndexByte(table, '.')+1:]
	return strings.NewReplacer("{table}", qualified(table, d.quote), "{name}", name, "{clock}", d.clock).Replace(statement)
}

func (d *dialect) placeholders(statement string) string {
	if !d.numbered {
		return statement
	}
	parts := strings.Split(statement, "?")
	var b strings.Builder
	for n, p := range parts[:len(parts)-1] {
		b.WriteString(p + "$" + strconv.Itoa(n+1))
	}
	return b.String() + parts[len(parts)-1]
}

func (d *dialect) expiredArgs(now int64, limit int) []any {
	if d.twice {
		return []any{now, limit, now}
	}
	return []any{now, limit}
}
