// Package sqlite opens SQLite databases as package sqlstore wants them, with
// modernc.org/sqlite, which needs no cgo.
package sqlite

import (
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Open opens the database file at path, and makes it, with mode 0600, if it is
// not there. Its folder must exist, on a local disk: SQLite's locks do not work
// on network file systems. Close it when the program ends.
//
// Readers and the writer do not wait for each other (write-ahead log); writers,
// also of other processes, wait for each other for 5 s, and sqlstore then tries
// again. What was written survives a power cut (synchronous=FULL). What was
// deleted is overwritten in the file (secure_delete). There is one connection,
// so a program's own goroutines take turns; for more, see
// [sql.DB.SetMaxOpenConns].
func Open(path string) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		err = create(path)
	}
	var db *sql.DB
	if err == nil {
		db, err = sql.Open("sqlite", dsn(path))
	}
	if err != nil {
		return nil, &persistence.Error{Op: "open", Backend: "sql", Location: path, Err: err, Remedy: "See whether the folder exists and may be written."}
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// create makes the file, so that no other user can read it. SQLite makes its
// further files with the same mode. A file that is there is not opened: when it
// was closed again, the system would drop the locks that SQLite has on it.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func dsn(path string) string {
	u := url.URL{Path: filepath.ToSlash(path)}
	if u.Path[0] != '/' {
		u.Path = "/" + u.Path // a drive's letter
	}
	return "file:" + u.EscapedPath() + "?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=secure_delete(ON)"
}
