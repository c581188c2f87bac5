package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/account"
)

// failure is what a database's error means. Err is nil if it is not the
// database's own, but the driver's or the network's.
type failure struct {
	account.Reason
	again  bool // the same statement may succeed
	exists bool // the row is there already
}

// fails returns the failure of a statement that the database refused, and so did not
// carry out.
func fails(class error, what, remedy string) failure {
	err := errors.New(what)
	if class != nil {
		err = fmt.Errorf("%w: %s", class, what)
	}
	return failure{Reason: account.Reason{Err: err, Remedy: remedy, Refused: true}}
}

func unavailable(what, remedy string) failure { return fails(persistence.ErrUnavailable, what, remedy) }

func busy(what string) failure {
	f := unavailable(what, "Other statements are in the way; try again.")
	f.again = true
	return f
}

var (
	readOnly    = unavailable("the database is read-only", "Connect to the primary server, with a user and a file that may be written.")
	full        = unavailable("the database or its disk is full", "Free space, or remove expired rows with DeleteExpired.")
	noTable     = unavailable("the table or a column of it is missing", "Call Migrate, or run the statements of SCHEMA.md.")
	forbidden   = unavailable("the database does not permit this user the statement", "Grant it SELECT, INSERT, UPDATE and DELETE on the table.")
	noDatabase  = unavailable("there is no such database", "Correct the data source name, or create the database.")
	refusesUser = unavailable("the database refuses the user or its password", "Correct the data source name.")
	timedOut    = unavailable("the database gave up the statement after its own time limit", "See what keeps the database busy, or raise its limit.")
	crowded     = unavailable("the database has too many connections", "Lower SetMaxOpenConns, or raise the database's limit.")
	stopping    = unavailable("the database is starting or stopping", "Try again when it has started.")
)

// pooled is the failure behind a pooler that gives each transaction another connection:
// a prepared statement exists on one connection only.
func pooled(state string) failure {
	return unavailable("a pooler between the program and the database loses the driver's prepared statements (SQLSTATE "+state+")",
		"If PgBouncer or the like is in transaction mode, add default_query_exec_mode=exec to pgx's data source name.")
}

// driverError is an error of the driver or of the network. It says nothing of
// what a statement held.
func driverError(err error) account.Reason {
	r := account.Reason{Err: fmt.Errorf("%w: %w", persistence.ErrUnavailable, err), Remedy: "See whether the database is up and reachable."}
	var safe interface{ SafeToRetry() bool }
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		r = account.Reason{Err: err}
	case errors.As(err, &safe) && safe.SafeToRetry(), errors.As(err, &op) && op.Op == "dial", errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone):
		r.Refused = true
	}
	return r
}

// explainPostgreSQL knows the SQLSTATE of an error, which both pgx and lib/pq
// tell. The message may quote the row.
func explainPostgreSQL(err error) failure {
	var e interface{ SQLState() string }
	if !errors.As(err, &e) {
		return failure{}
	}
	state := e.SQLState()
	switch state {
	case "40001", "40P01":
		return busy("the database gave up the statement in favour of another one")
	case "23505", "42P07", "42710":
		return busy("another process is making the table") // IF NOT EXISTS does not see it yet
	case "55P03":
		return busy("the row is locked")
	case "57P01": // a switchover, or somebody ended this connection: others may work
		f := stopping
		f.again = true
		return f
	case "26000", "42P05":
		return pooled(state)
	case "08P01":
		f := pooled(state)
		f.Refused = false
		return f
	case "25006":
		return readOnly
	case "53100", "53200":
		return full
	case "53300":
		return crowded
	case "57014", "25P03", "25P04":
		return timedOut
	case "3D000":
		return noDatabase
	case "42P01", "42703", "3F000":
		return noTable
	case "42501":
		return forbidden
	case "54000":
		return fails(persistence.ErrTooLarge, "more than the database takes", "Keep one account in each cache.")
	}
	switch state[:min(2, len(state))] {
	case "57":
		return stopping
	case "28":
		return refusesUser
	case "08":
		return failure{Reason: account.Reason{Err: fmt.Errorf("%w: the connection was lost (SQLSTATE %s)", persistence.ErrUnavailable, state), Remedy: "See whether the database is up and reachable."}}
	}
	return unavailable("the database refused the statement (SQLSTATE "+state+")", "See the database's log.")
}

// explainSQLite knows the result code of an error of modernc.org/sqlite.
func explainSQLite(err error) failure {
	var e interface{ Code() int }
	if !errors.As(err, &e) {
		return failure{}
	}
	switch code := e.Code() & 0xff; code {
	case 5, 6:
		return busy("the database is locked")
	case 8:
		return readOnly
	case 13:
		return full
	case 11, 26:
		return fails(persistence.ErrCorrupt, "the file is damaged, or is not a database", "Restore it from a backup, or remove it: everybody signs in again.")
	case 14:
		return unavailable("the database file cannot be opened", "See whether its folder exists and may be written.")
	case 18:
		return fails(persistence.ErrTooLarge, "more than the database takes", "Keep one account in each cache.")
	case 3, 23:
		return forbidden
	case 9:
		return timedOut
	case 10:
		return failure{Reason: account.Reason{Err: fmt.Errorf("%w: the disk failed (SQLite code %d)", persistence.ErrUnavailable, e.Code()), Remedy: "See the system's log for what is wrong with the disk."}}
	default:
		if code == 1 && strings.Contains(err.Error(), "no such ") {
			return noTable
		}
		return unavailable(fmt.Sprintf("the database refused the statement (SQLite code %d)", e.Code()), "See whether the table is as SCHEMA.md has it.")
	}
}

// mysqlNumber finds the number of an error of go-sql-driver/mysql, whose text
// begins with it.
var mysqlNumber = regexp.MustCompile(`^Error (\d+)\b`)

func explainMySQL(err error) failure {
	var text string
	for e := err; e != nil && text == ""; e = errors.Unwrap(e) {
		if m := mysqlNumber.FindStringSubmatch(e.Error()); m != nil {
			text = m[1]
		}
	}
	switch text {
	case "":
		return failure{}
	case "1062":
		return failure{exists: true}
	case "1213", "1205", "1020":
		return busy("the database gave up the statement in favour of another one")
	case "1290", "1792", "1836":
		return readOnly
	case "1021", "1114", "1041":
		return full
	case "1040", "1203", "1226":
		return crowded
	case "3024", "1969", "1317":
		return timedOut
	case "1049":
		return noDatabase
	case "1146", "1054":
		return noTable
	case "1142", "1143", "1227":
		return forbidden
	case "1044", "1045", "1698":
		return refusesUser
	case "1053", "1077":
		return stopping
	case "1153", "1301":
		return fails(persistence.ErrTooLarge, "more than the database takes", "Raise max_allowed_packet, or keep one account in each cache.")
	}
	return unavailable("the database refused the statement (MySQL error "+text+")", "See the database's log.")
}
