package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

func TestPostgreSQLExpiry(t *testing.T) {
	pg := servers.SharedPostgres(t)
	testExpiry(t, servers.OpenPostgres(t, pg.URL(pg.NewDatabase(t))), sqlstore.PostgreSQL)
}

func TestPostgreSQLNoTable(t *testing.T) {
	pg := servers.SharedPostgres(t)
	testNoTable(t, servers.OpenPostgres(t, pg.URL(pg.NewDatabase(t))), sqlstore.PostgreSQL)
}

// Apps that start at once all make the table.
func TestPostgreSQLMigrateAtOnce(t *testing.T) {
	pg := servers.SharedPostgres(t)
	for range 5 {
		db := servers.OpenPostgres(t, pg.URL(pg.NewDatabase(t)))
		s, err := sqlstore.New(db, sqlstore.PostgreSQL, &sqlstore.Options{Table: "public.accounts"})
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := s.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		storetest.Save(t, s.Account("alice"), "data")
	}
}

func TestPostgreSQLServerDown(t *testing.T) {
	pg := servers.StartPostgres(t)
	a := newStore(t, pg.DB("postgres"), sqlstore.PostgreSQL, nil).Account("alice")
	rev := storetest.Save(t, a, storetest.Planted)
	pg.Kill()
	_, err := a.Revision(t.Context()) // may still have its old connection
	storetest.RequireTrouble(t, "sql", err)
	_, err = a.SaveIf(t.Context(), []byte(storetest.Planted+" "), rev)
	storetest.RequireTrouble(t, "sql", err, "connect", "nothing was changed")
	storetest.RequireTrouble(t, "sql", a.DeleteIf(t.Context(), rev))
	storetest.RequireTrouble(t, "sql", a.Save(t.Context(), []byte(storetest.Planted)))
	pg.Start()
	storetest.RequireHolds(t, a, storetest.Planted)
	_, err = a.SaveIf(t.Context(), []byte("new"), rev)
	require.NoError(t, err)
}

// Another transaction has the row locked for longer than the context lasts.
func TestPostgreSQLSlow(t *testing.T) {
	pg := servers.SharedPostgres(t)
	name := pg.NewDatabase(t)
	db := servers.OpenPostgres(t, pg.URL(name))
	a := newStore(t, db, sqlstore.PostgreSQL, nil).Account("alice")
	rev := storetest.Save(t, a, storetest.Planted)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), `SELECT 1 FROM tokenkeep_accounts FOR UPDATE`)
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = a.SaveIf(ctx, []byte(storetest.Planted+" "), rev)
	storetest.RequireTrouble(t, "sql", err, "no answer in time", "whether it was done is not known")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	storetest.RequireHolds(t, a, storetest.Planted)

	limited := servers.OpenPostgres(t, pg.URL(name, "statement_timeout=50"))
	s, err := sqlstore.New(limited, sqlstore.PostgreSQL, nil)
	require.NoError(t, err)
	_, err = s.Account("alice").SaveIf(t.Context(), []byte(storetest.Planted+" "), rev)
	storetest.RequireTrouble(t, "sql", err, "its own time limit", "nothing was changed")

	require.NoError(t, tx.Rollback())
	_, err = a.SaveIf(t.Context(), []byte("new"), rev)
	require.NoError(t, err, "what was given up came to nothing")
}

// The server takes connections and does not answer.
func TestPostgreSQLHangs(t *testing.T) {
	pg := servers.StartPostgres(t)
	s, err := sqlstore.New(pg.DB("postgres"), sqlstore.PostgreSQL, nil)
	require.NoError(t, err)
	pg.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = s.Account("alice").Load(ctx)
	storetest.RequireTrouble(t, "sql", err, "no answer in time")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// The server saves, and its answer is lost with the connection.
func TestPostgreSQLLostAnswer(t *testing.T) {
	pg := servers.SharedPostgres(t)
	name := pg.NewDatabase(t)
	proxy := servers.StartProxy(t, pg.Addr)
	db := servers.OpenPostgres(t, fmt.Sprintf("postgres://test@%s/%s?sslmode=disable&default_query_exec_mode=exec", proxy.Addr, name))
	db.SetMaxOpenConns(1)
	a := newStore(t, db, sqlstore.PostgreSQL, nil).Account("alice")
	rev := storetest.Save(t, a, "old")
	proxy.LoseAnswers(1)
	_, err := a.SaveIf(t.Context(), []byte(storetest.Planted), rev)
	storetest.RequireTrouble(t, "sql", err, "whether it was done is not known")
	storetest.RequireHolds(t, a, storetest.Planted)
}

func TestPostgreSQLReadOnly(t *testing.T) {
	pg := servers.SharedPostgres(t)
	name := pg.NewDatabase(t)
	rev := storetest.Save(t, newStore(t, servers.OpenPostgres(t, pg.URL(name)), sqlstore.PostgreSQL, nil).Account("alice"), storetest.Planted)
	s, err := sqlstore.New(servers.OpenPostgres(t, pg.URL(name, "default_transaction_read_only=on")), sqlstore.PostgreSQL, nil)
	require.NoError(t, err)
	far := time.Now().Add(sqlstore.DefaultTTL / 2)
	s.SetClock(func() time.Time { return far }) // renewing cannot work, and does not matter
	storetest.RequireHolds(t, s.Account("alice"), storetest.Planted)
	_, err = s.Account("alice").SaveIf(t.Context(), []byte(storetest.Planted), rev)
	storetest.RequireTrouble(t, "sql", err, "read-only", "nothing was changed", "primary")
	storetest.RequireTrouble(t, "sql", s.Account("alice").DeleteIf(t.Context(), rev), "read-only")
	warnings, err := s.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, warnings, 3) // the shared server cares little for its disk
	require.Contains(t, warnings[0], "read-only")
	require.Contains(t, warnings[1], "fsync off")
	require.Contains(t, warnings[2], "synchronous_commit off")
}

// Check warns of the pool that sql.Open makes.
func TestPostgreSQLCheckWarnsOfThePool(t *testing.T) {
	pg := servers.SharedPostgres(t)
	db := servers.OpenPostgres(t, pg.URL(pg.NewDatabase(t)))
	s := newStore(t, db, sqlstore.PostgreSQL, nil)
	for most, warns := range map[int]int{0: 1, 16: 0} {
		db.SetMaxOpenConns(most)
		warnings, err := s.Check(t.Context())
		require.NoError(t, err)
		require.Equal(t, warns, strings.Count(strings.Join(warnings, " "), "no maximum"), "%v", warnings)
	}
}

// A switchover ends connections that are in use. The statement is run again, on
// another connection.
func TestPostgreSQLEndsAConnection(t *testing.T) {
	pg := servers.SharedPostgres(t)
	name := pg.NewDatabase(t)
	db, admin := servers.OpenPostgres(t, pg.URL(name)), servers.OpenPostgres(t, pg.URL("postgres"))
	a := newStore(t, db, sqlstore.PostgreSQL, nil).Account("alice")
	rev := storetest.Save(t, a, "old")
	ended := func(call func() error) error {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer tx.Rollback()
		_, err = tx.ExecContext(t.Context(), `SELECT 1 FROM tokenkeep_accounts FOR UPDATE`)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- call() }()
		servers.Eventually(t, "it waited, and its connection was ended", func() bool {
			var n int
			require.NoError(t, admin.QueryRowContext(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1`, name).Scan(&n))
			return n > 0
		})
		require.NoError(t, tx.Rollback())
		return <-done
	}
	control := ended(func() error {
		_, err := db.ExecContext(t.Context(), `UPDATE tokenkeep_accounts SET expires = expires`)
		return err
	})
	require.ErrorContains(t, control, "57P01")
	require.NoError(t, ended(func() error { _, err := a.SaveIf(t.Context(), []byte("new"), rev); return err }))
	storetest.RequireHolds(t, a, "new")
}

// A trigger refuses rows, with the database's own codes, and quotes them.
func TestPostgreSQLRefuses(t *testing.T) {
	pg := servers.SharedPostgres(t)
	for code, says := range map[string]string{
		"53100": "full",
		"54000": "too large",
		"P0001": "SQLSTATE P0001",
		"42501": "does not permit",
	} {
		t.Run(code, func(t *testing.T) {
			db := servers.OpenPostgres(t, pg.URL(pg.NewDatabase(t)))
			a := newStore(t, db, sqlstore.PostgreSQL, nil).Account("alice")
			rev := storetest.Save(t, a, "old")
			exec(t, db, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				RAISE EXCEPTION 'no: %', convert_from(NEW.data, 'UTF8') USING ERRCODE = '`+code+`', DETAIL = convert_from(NEW.data, 'UTF8');
			END $$`)
			exec(t, db, `CREATE TRIGGER refuse BEFORE UPDATE ON tokenkeep_accounts FOR EACH ROW EXECUTE FUNCTION refuse()`)
			_, control := db.ExecContext(t.Context(), `UPDATE tokenkeep_accounts SET data = $1`, []byte(storetest.Planted))
			require.ErrorContains(t, control, "planted-")
			_, err := a.SaveIf(t.Context(), []byte(storetest.Planted), rev)
			require.ErrorContains(t, err, says)
			require.ErrorContains(t, err, "nothing was changed")
			storetest.RequireNoSecret(t, err)
			require.Equal(t, code == "54000", errors.Is(err, persistence.ErrTooLarge))
			storetest.RequireHolds(t, a, "old")
		})
	}
}

func TestPostgreSQLWrongDatabaseAndUser(t *testing.T) {
	pg := servers.SharedPostgres(t)
	for url, says := range map[string]string{
		pg.URL("nowhere"): "there is no such database",
		"postgres://nobody:planted-8b1d4e7f20c95a63@" + pg.Addr + "/postgres?sslmode=disable": "refuses the user",
	} {
		s, err := sqlstore.New(servers.OpenPostgres(t, url), sqlstore.PostgreSQL, nil)
		require.NoError(t, err)
		_, err = s.Account("alice").Load(t.Context())
		storetest.RequireTrouble(t, "sql", err, says)
	}
}

// Where transactions are isolated strictly, the database gives up statements
// that meet. The store tries them again: each ends as saved or as a conflict.
func TestPostgreSQLSerializationFailures(t *testing.T) {
	pg := servers.SharedPostgres(t)
	name := pg.NewDatabase(t)
	db := servers.OpenPostgres(t, pg.URL(name, "default_transaction_isolation=serializable"))
	a := newStore(t, db, sqlstore.PostgreSQL, nil).Account("alice")
	rev := storetest.Save(t, a, "old")

	// Two that meet: the second waits for the first, and is then given up.
	meet := func(second func() error) error {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer tx.Rollback()
		_, err = tx.ExecContext(t.Context(), `UPDATE tokenkeep_accounts SET expires = expires`)
		require.NoError(t, err)
		done := make(chan error)
		go func() { done <- second() }()
		servers.Eventually(t, "the second waits", func() bool {
			var n int
			require.NoError(t, db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1`, name).Scan(&n))
			return n > 0
		})
		require.NoError(t, tx.Commit())
		return <-done
	}
	control := meet(func() error {
		_, err := db.ExecContext(t.Context(), `UPDATE tokenkeep_accounts SET expires = expires`)
		return err
	})
	require.ErrorContains(t, control, "40001")
	require.NoError(t, meet(func() error { _, err := a.SaveIf(t.Context(), []byte("new"), rev); return err }))
	storetest.RequireHolds(t, a, "new")

	var wg sync.WaitGroup
	var won atomic.Int64
	rev, err := a.Revision(t.Context())
	require.NoError(t, err)
	for n := range 16 {
		wg.Go(func() {
			_, err := a.SaveIf(t.Context(), fmt.Append(nil, n), rev)
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, persistence.ErrConflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(1), won.Load())
}
