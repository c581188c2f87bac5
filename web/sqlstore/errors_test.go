package sqlstore

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// state is an error as PostgreSQL's drivers have it, code one as SQLite's.
type (
	state string
	code  int
)

func (s state) Error() string    { return "planted-7f3a" }
func (s state) SQLState() string { return string(s) }
func (c code) Error() string     { return "planted-7f3a" }
func (c code) Code() int         { return int(c) }

// mysql is an error as go-sql-driver/mysql has it.
type mysql int

func (m mysql) Error() string { return fmt.Sprintf("Error %d (HY000): planted-7f3a", int(m)) }

// What is hard to bring about in a real database, and that no message of one is
// shown, since it may quote the row.
func TestExplain(t *testing.T) {
	for _, test := range []struct {
		d     Dialect
		err   error
		class error
		says  string
		again bool
	}{
		{PostgreSQL, state("40P01"), persistence.ErrUnavailable, "in favour of another one", true},
		{PostgreSQL, state("53300"), persistence.ErrUnavailable, "too many connections", false},
		{PostgreSQL, state("57P03"), persistence.ErrUnavailable, "starting or stopping", false},
		{PostgreSQL, state("57P01"), persistence.ErrUnavailable, "starting or stopping", true},
		{PostgreSQL, state("26000"), persistence.ErrUnavailable, "a pooler", false},
		{PostgreSQL, state("42P05"), persistence.ErrUnavailable, "a pooler", false},
		{PostgreSQL, state("28P01"), persistence.ErrUnavailable, "refuses the user", false},
		{PostgreSQL, state("XX000"), persistence.ErrUnavailable, "SQLSTATE XX000", false},
		{SQLite, code(5 | 2<<8), persistence.ErrUnavailable, "locked", true},
		{SQLite, code(13), persistence.ErrUnavailable, "full", false},
		{SQLite, code(18), persistence.ErrTooLarge, "more than", false},
		{SQLite, code(11), persistence.ErrCorrupt, "damaged", false},
		{SQLite, code(19), persistence.ErrUnavailable, "SQLite code 19", false},
		{MySQL, mysql(1213), persistence.ErrUnavailable, "in favour of another one", true},
		{MySQL, mysql(1290), persistence.ErrUnavailable, "read-only", false},
		{MySQL, mysql(1114), persistence.ErrUnavailable, "full", false},
		{MySQL, mysql(1146), persistence.ErrUnavailable, "table", false},
		{MySQL, mysql(1153), persistence.ErrTooLarge, "more than", false},
		{MySQL, mysql(9999), persistence.ErrUnavailable, "MySQL error 9999", false},
	} {
		f := dialects[test.d].explain(fmt.Errorf("wrapped: %w", test.err))
		require.ErrorIs(t, f.Err, test.class)
		require.ErrorContains(t, f.Err, test.says)
		require.NotContains(t, f.Err.Error(), "storetest.Planted")
		require.NotEmpty(t, f.Remedy)
		require.True(t, f.Refused)
		require.Equal(t, test.again, f.again)
	}
	// Where the connection or the disk failed, nobody knows what was done.
	require.False(t, dialects[PostgreSQL].explain(state("08006")).Refused)
	require.False(t, dialects[SQLite].explain(code(10)).Refused)
	require.False(t, driverError(errors.New("unexpected EOF")).Refused)
	require.True(t, driverError(&net.OpError{Op: "dial", Err: errors.New("refused")}).Refused)
	require.True(t, dialects[MySQL].explain(mysql(1062)).exists)
	for _, d := range dialects {
		require.NoError(t, d.explain(errors.New("unexpected EOF")).Err)
	}
}

// Whether a statement was done that a pooler answered so is not known.
func TestExplainProtocolViolation(t *testing.T) {
	f := explainPostgreSQL(state("08P01"))
	require.ErrorContains(t, f.Err, "a pooler")
	require.False(t, f.Refused)
}
