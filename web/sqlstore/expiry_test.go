package sqlstore_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

// clock is a time that tests move, in hours.
type clock struct{ hours int }

func (c *clock) now() time.Time {
	return time.Unix(1_000_000_000, 0).Add(time.Duration(c.hours) * time.Hour)
}

func testExpiry(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
	s := newStore(t, db, d, &sqlstore.Options{TTL: 1000 * time.Hour})
	var c clock
	s.SetClock(c.now)
	a := s.Account("alice")
	rev := storetest.Save(t, a, "data")
	read := func() string {
		t.Helper()
		now, err := a.Revision(t.Context())
		require.NoError(t, err)
		return now
	}
	expires := func() (hours int) {
		t.Helper()
		var at int64
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT expires FROM tokenkeep_accounts WHERE account = 'alice'`).Scan(&at))
		return int(time.Unix(at, 0).Sub((&clock{}).now()).Hours())
	}

	// It is kept for the time to live and up to a tenth more, whenever it was
	// used, and one use in a tenth of the time is a write.
	first := expires()
	between := func() {
		t.Helper()
		require.Greater(t, expires(), c.hours+1000-1)
		require.LessOrEqual(t, expires(), c.hours+1100)
	}
	between()
	writes := 0
	for last := first; c.hours < 500; c.hours++ {
		require.Equal(t, rev, read())
		between()
		if now := expires(); now != last {
			require.Equal(t, last+100, now)
			last = now
			writes++
		}
	}
	require.Equal(t, 5, writes)
	c.hours = first - 1
	storetest.RequireHolds(t, a, "data")
	between()

	// What has expired passes for absent, though the row is there.
	c.hours = expires() + 1
	require.Empty(t, read())
	_, err := a.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	_, err = a.SaveIf(t.Context(), []byte("late"), rev)
	require.ErrorIs(t, err, persistence.ErrConflict)
	require.ErrorIs(t, a.DeleteIf(t.Context(), rev), persistence.ErrConflict)
	require.NoError(t, a.DeleteIf(t.Context(), ""))
	require.NoError(t, a.Delete(t.Context()))
	again, err := a.SaveIf(t.Context(), []byte("again"), "")
	require.NoError(t, err)
	require.Equal(t, again, read())
	between()
	require.NoError(t, a.Delete(t.Context()))

	// Expired rows are removed, the oldest first, as many as are wanted.
	for n := range 10 {
		c.hours = 10_000 + 100*n
		require.NoError(t, s.Account(fmt.Sprint("user", n)).Save(t.Context(), nil))
	}
	rows := func() (accounts []string) {
		t.Helper()
		found, err := db.QueryContext(t.Context(), `SELECT account FROM tokenkeep_accounts ORDER BY expires`)
		require.NoError(t, err)
		defer found.Close()
		for found.Next() {
			var a string
			require.NoError(t, found.Scan(&a))
			accounts = append(accounts, a)
		}
		require.NoError(t, found.Err())
		return accounts
	}
	remove := func(limit, want int) {
		t.Helper()
		n, err := s.DeleteExpired(t.Context(), limit)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	c.hours = 10_999
	remove(100, 0)
	c.hours = 11_700
	remove(0, 0)
	remove(4, 4)
	require.Equal(t, []string{"user4", "user5", "user6", "user7", "user8", "user9"}, rows())
	remove(4, 3)
	remove(4, 0)
	require.Equal(t, []string{"user7", "user8", "user9"}, rows())
}

func TestSQLiteExpiry(t *testing.T) {
	testExpiry(t, openSQLite(t, t.TempDir()+"/app.db"), sqlstore.SQLite)
}

func TestDefaultTTL(t *testing.T) {
	require.Greater(t, sqlstore.DefaultTTL, 90*24*time.Hour)
}
