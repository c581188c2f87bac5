// Package sqlstore keeps token caches in a SQL database, one row per account,
// for web apps. It works through database/sql with PostgreSQL, SQLite and
// MySQL or MariaDB, and imports none of their drivers.
//
//	db, err := sqlite.Open("app.db") // of package sqlstore/sqlite; or sql.Open
//	store, err := sqlstore.New(db, sqlstore.SQLite, nil)
//	...
//	err = store.Migrate(ctx) // makes the table, unless it is there
//
// # What is stored
//
// One row per account: its key, a random revision, the serialized token cache
// and when it expires. SCHEMA.md has the SQL, for those who keep their schema
// themselves. Tokens are stored as they are. If the database must not see them, put
// package sealed in front of this one.
//
// # What it costs
//
// Each of Revision, LoadRevision, SaveIf, DeleteIf, Lease and Release is one
// statement on the primary key, in a transaction of its own. Save and Delete are
// two, and so is a Lease that another server has. Nothing is locked between
// statements: a save names the revision that it replaces, and a lease (see
// [persistence.Partitioned.Exclusive]) is two columns of the row, which end by the
// database's clock.
//
// # The pool
//
// By default, [sql.DB] keeps two idle connections and has no maximum: under load,
// requests dial again, several times slower, until the database has too many
// connections. Set both, to about as many as the database has processors to work
// with, and let connections end now and then, so that those to a server that is no
// longer the primary go away. Check warns where there is no maximum.
//
//	db.SetMaxOpenConns(16)
//	db.SetMaxIdleConns(16)
//	db.SetConnMaxLifetime(5 * time.Minute)
//
// For PostgreSQL with standbys, name all servers and target_session_attrs=read-write
// in pgx's data source name, so that each new connection is one to the primary.
// Through PgBouncer or another pooler in transaction mode, add
// default_query_exec_mode=exec to it: prepared statements do not survive there.
//
// A request waits for an answer no longer than its context: give the cache a time
// limit that is right for a request, such as persistence.WithTimeout(2*time.Second).
// pgx and go-sql-driver/mysql end with their context and are called directly; each
// call of another driver has a goroutine, which is left behind if need be.
//
// # Expiry
//
// Every row has a time of expiry, from which on it counts as absent. The time moves in
// steps of a tenth of Options.TTL, so that few reads are writes, and few saves change
// the index on it. [Store.DeleteExpired] removes rows that have expired, a bounded
// number at a time; call it now and then. The clock is the app's.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/account"
)

// DefaultTable is the name of the table by default.
const DefaultTable = "tokenkeep_accounts"

// DefaultTTL is how long an account is kept by default after its last use:
// longer than the 90 days without use that a refresh token of Microsoft Entra
// ID lasts ("Configurable token lifetimes in the Microsoft identity platform",
// refresh token max inactive time).
const DefaultTTL = 100 * 24 * time.Hour

// MaxSize is the largest data, in bytes, that an account can have. More fails
// with persistence.ErrTooLarge.
const MaxSize = account.MaxSize

// Options are the settings of a Store. The zero value is right for most.
type Options struct {
	// Table is the table's name: up to 48 of a-z, 0-9 and '_', not beginning with
	// a digit; a schema of the same form may stand before it, with a dot. ""
	// means DefaultTable. Apps that are not to share accounts need tables of
	// their own.
	Table string
	// TTL is how long an account is kept after its last use, be it read or
	// saved; it may be up to a tenth longer. It should be longer than the
	// authority's refresh tokens last without use. 0 means DefaultTTL; at least
	// a minute.
	TTL time.Duration
}

// Store is a table that keeps accounts. It is safe for concurrent use, holds
// nothing but its database handle, and needs no Close.
type Store struct {
	db    *sql.DB
	d     *dialect
	table string
	ttl   time.Duration
	now   func() time.Time
	obeys func() bool

	leasedBy, lease, release                                                string
	revision, load, insert, update, renew, remove, removeOld, removeExpired string
}

var tableName = regexp.MustCompile(`^(?:[a-z_][a-z0-9_]{0,47}\.)?[a-z_][a-z0-9_]{0,47}$`)

// New returns a Store in db, which stays the caller's to close. It does no
// I/O; see [Store.Migrate]. A nil opts means the defaults.
func New(db *sql.DB, d Dialect, opts *Options) (*Store, error) {
	if opts == nil {
		opts = &Options{}
	}
	s := &Store{db: db, d: dialects[d], table: opts.Table, ttl: opts.TTL, now: time.Now}
	if s.table == "" {
		s.table = DefaultTable
	}
	if s.ttl == 0 {
		s.ttl = DefaultTTL
	}
	switch {
	case db == nil:
		return nil, s.openError("the database is nil", "Pass New what sql.Open returned.")
	case s.d == nil:
		return nil, s.openError(fmt.Sprintf("there is no dialect %d", d), "Pass New one of PostgreSQL, SQLite and MySQL.")
	case !tableName.MatchString(s.table):
		return nil, s.openError("the table's name is not of the permitted form", "Set Options.Table to a name of a-z, 0-9 and '_'.")
	case s.ttl < time.Minute:
		return nil, s.openError("the time to live is shorter than a minute", "Set Options.TTL to longer than refresh tokens last, or to 0.")
	}
	s.revision = s.sql(`SELECT revision, expires FROM {table} WHERE account = ? AND expires > ?`)
	s.load = s.sql(`SELECT revision, expires, data FROM {table} WHERE account = ? AND expires > ?`)
	s.insert = s.sql(s.d.insert)
	s.update = s.sql(`UPDATE {table} SET revision = ?, data = ?, expires = ? WHERE account = ? AND revision = ? AND expires > ?`)
	s.renew = s.sql(`UPDATE {table} SET expires = ? WHERE account = ? AND revision = ? AND expires < ?`)
	s.remove = s.sql(`DELETE FROM {table} WHERE account = ? AND revision = ? AND expires > ?`)
	s.removeOld = s.sql(`DELETE FROM {table} WHERE account = ? AND expires <= ?`)
	s.removeExpired = s.sql(s.d.removeExpired)
	s.leasedBy = s.sql(`SELECT lease_owner, lease_until FROM {table} WHERE account = ?`)
	s.lease = s.sql(`UPDATE {table} SET lease_owner = ?, lease_until = {clock} + ? WHERE account = ? AND (lease_until <= {clock} OR lease_owner = ?)`)
	s.release = s.sql(`UPDATE {table} SET lease_until = 0 WHERE account = ? AND lease_owner = ?`)
	s.obeys = sync.OnceValue(func() bool { return obeys(db) })
	return s, nil
}

// obeys reports whether the driver of db is known to return soon after a context
// has ended.
func obeys(db *sql.DB) bool {
	t := reflect.TypeOf(db.Driver())
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return false
	}
	switch t.PkgPath() {
	case "github.com/jackc/pgx/v5/stdlib", "github.com/go-sql-driver/mysql":
		return true
	}
	return false
}

func (s *Store) openError(what, remedy string) error {
	return &persistence.Error{Op: "open", Backend: backend, Err: errors.New(what), Remedy: remedy}
}

// sql is a statement in this store's dialect and on its table.
func (s *Store) sql(statement string) string {
	return s.d.placeholders(s.d.named(statement, s.table))
}

// Account returns the cache of one account. key is the account's partition
// key, of MSAL Go its home account id: UTF-8 text of 1 to 512 bytes without
// NUL. A key that is anything else fails every call. Account does no I/O and
// costs next to nothing.
//
// The errors of what it returns match persistence.ErrUnavailable where the
// database is down, slow, read-only, full, without the table or refuses this
// user, and say whether a save or a delete was done, or that it cannot be known.
// Statements that a database gave up in favour of others (deadlocks,
// serialization failures, a locked SQLite file), or because it ended a connection
// of the pool (57P01, as in a switchover), are repeated until the context ends.
func (s *Store) Account(key string) persistence.Versioned {
	return account.New(rows{s}, key)
}

// Migrate makes the table and its index, or adds what this version of the package needs
// to a table of an earlier one. It changes nothing that is there already. It may run
// in several processes at once, and at each start. It needs the right to create tables;
// SCHEMA.md has the SQL for those who prefer to run it themselves.
func (s *Store) Migrate(ctx context.Context) error {
	for _, statement := range s.schema() {
		if _, err := s.admin(ctx, "migrate", statement); err != nil {
			return err
		}
	}
	for _, c := range s.d.added {
		if err := s.addColumn(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// addColumn adds a column to a table that has been made without it. Not all
// databases have ADD COLUMN IF NOT EXISTS, and two processes may add it at once.
func (s *Store) addColumn(ctx context.Context, c column) error {
	if s.has(ctx, c.name) == nil {
		return nil
	}
	_, err := s.admin(ctx, "migrate", s.sql(`ALTER TABLE {table} ADD COLUMN `+c.name+` `+c.definition))
	if err != nil && s.has(ctx, c.name) == nil {
		return nil
	}
	return err
}

// has fails unless the table has the column.
func (s *Store) has(ctx context.Context, column string) error {
	_, err := s.admin(ctx, "migrate", s.sql(`SELECT `+column+` FROM {table} WHERE 1 = 0`))
	return err
}

// schema is what Migrate runs, in order.
func (s *Store) schema() (statements []string) {
	for _, statement := range s.d.schema {
		statements = append(statements, s.d.named(statement, s.table))
	}
	return statements
}

// DeleteExpired removes rows that have expired, at most limit of them and the oldest
// first, and returns how many it removed. Fewer than limit means that there are no more.
// With a small limit, such as 1000, the statement is short, and so are the waits for it.
func (s *Store) DeleteExpired(ctx context.Context, limit int) (int, error) {
	if limit < 1 {
		return 0, nil
	}
	now := s.now().Unix()
	return s.admin(ctx, "expire", s.removeExpired, s.d.expiredArgs(now, limit)...)
}

// admin runs a statement that holds no account's data.
func (s *Store) admin(ctx context.Context, op, statement string, args ...any) (int, error) {
	n, err := account.Within(ctx, rows{s}, func(ctx context.Context) (int64, error) {
		n, _, err := s.exec(ctx, statement, args...)
		return n, err
	})
	if err != nil {
		return 0, s.adminError(ctx, op, err)
	}
	return int(n), nil
}

func (s *Store) adminError(ctx context.Context, op string, err error) error {
	why := account.Explain(ctx, rows{s}, err)
	return &persistence.Error{Op: op, Backend: backend, Location: s.table, Err: why.Err, Remedy: why.Remedy}
}

// exec runs a statement, and repeats it if the database gave it up in favour of others.
// It returns how many rows it changed, and whether it ran more than once.
func (s *Store) exec(ctx context.Context, statement string, args ...any) (n int64, repeated bool, err error) {
	tries := 0
	err = s.repeat(ctx, func() error {
		tries++
		result, err := s.db.ExecContext(ctx, statement, args...)
		if err == nil {
			n, err = result.RowsAffected()
		}
		return err
	})
	return n, tries > 1, err
}

func (s *Store) repeat(ctx context.Context, run func() error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := run()
		if err == nil || !s.d.explain(err).again {
			return err
		}
		if account.Wait(ctx, wait) != nil {
			return err
		}
	}
}

const backend = "sql"

// rows are the accounts as package account wants them.
type rows struct{ *Store }

func (r rows) Describe(key string) persistence.Description {
	return persistence.Description{Backend: backend, Location: r.table + "/" + key}
}

func (r rows) Obeys() bool { return r.obeys() }

func (r rows) Get(ctx context.Context, key string, withData bool) (data []byte, rev string, err error) {
	now := r.now().Unix()
	var expires int64
	statement, into := r.revision, []any{&rev, &expires}
	if withData {
		statement, into = r.load, append(into, &data)
	}
	err = r.repeat(ctx, func() error { return r.db.QueryRowContext(ctx, statement, key, now).Scan(into...) })
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, "", nil
	case err != nil:
		return nil, "", err
	}
	if fresh := r.expiry(key, now); expires < fresh {
		// If it fails, the next read tries again.
		r.db.ExecContext(ctx, r.renew, fresh, key, rev, fresh)
	}
	return data, rev, nil
}

func (r rows) expiry(key string, now int64) int64 {
	return account.Expiry(key, now, int64(r.ttl/time.Second))
}

func (r rows) Put(ctx context.Context, key string, data []byte, old, rev string) (bool, error) {
	now := r.now().Unix()
	if old != "" {
		n, repeated, err := r.exec(ctx, r.update, rev, data, r.expiry(key, now), key, old, now)
		return r.wasPut(ctx, key, rev, n, repeated, err)
	}
	insert := func() (bool, error) {
		n, repeated, err := r.exec(ctx, r.insert, key, rev, data, r.expiry(key, now))
		if err != nil && r.d.explain(err).exists {
			n, err = 0, nil
		}
		return r.wasPut(ctx, key, rev, n, repeated, err)
	}
	done, err := insert()
	if done || err != nil {
		return done, err
	}
	// A row that has expired counts as absent, but a new one cannot be inserted beside it.
	n, _, err := r.exec(ctx, r.removeOld, key, now)
	if n == 0 || err != nil {
		return false, err
	}
	return insert()
}

// wasPut is whether a statement has put rev. One that ran more than once may have
// succeeded the first time, when its answer was that the connection ends.
func (r rows) wasPut(ctx context.Context, key, rev string, n int64, repeated bool, err error) (bool, error) {
	if err != nil || n > 0 || !repeated {
		return n > 0 && err == nil, err
	}
	_, now, err := r.Get(ctx, key, false)
	return now == rev, err
}

func (r rows) Drop(ctx context.Context, key, old string) (bool, error) {
	n, _, err := r.exec(ctx, r.remove, key, old, r.now().Unix())
	return n > 0, err
}

func (r rows) Lease(ctx context.Context, key, owner string, d time.Duration) (bool, error) {
	n, _, err := r.exec(ctx, r.lease, owner, max(1, d.Milliseconds()), key, owner)
	if n > 0 || err != nil {
		return n > 0, err
	}
	// There is no row, or another one has the lease, or nothing has changed, for which
	// MySQL counts no row.
	by, err := r.leaseOf(ctx, key)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return err == nil && by == owner, err
}

// leaseOf returns who has the lease, or had it last.
func (r rows) leaseOf(ctx context.Context, key string) (owner string, err error) {
	var until int64
	err = r.repeat(ctx, func() error { return r.db.QueryRowContext(ctx, r.leasedBy, key).Scan(&owner, &until) })
	return owner, err
}

func (r rows) Release(ctx context.Context, key, owner string) error {
	_, _, err := r.exec(ctx, r.release, key, owner)
	return err
}

func (r rows) Explain(err error) account.Reason {
	f := r.d.explain(err)
	if f.Err == nil {
		return driverError(err)
	}
	return f.Reason
}

// qualified is a table's name, each part in quotation marks.
func qualified(name, quote string) string {
	return quote + strings.ReplaceAll(name, ".", quote+"."+quote) + quote
}
