// Package sqlite opens SQLite databases with the settings that package sqlstore
// needs. The driver is modernc.org/sqlite, which needs no cgo.
package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Open opens the database file at path, and makes it, with mode 0600, if it is
// not there. Its folder must exist, on a local disk: SQLite's locks do not work
// on network file systems. Close the database when the program ends.
//
// Open fails, before SQLite reads anything, if the database or one of the files
// that SQLite keeps beside it ("-wal", "-shm", "-journal") is not a regular file
// (also if it is a symbolic link), belongs to another user or is open to other
// users: another user could have put it there. It also fails if other users
// than root can write the folder, since they could replace the files later. On
// Windows only the first is checked: who may do what is for the folder's access
// list to say. The error is a *persistence.Error and matches fs.ErrPermission.
//
// Readers and the writer do not wait for each other (write-ahead log). Writers
// wait for each other for 5 s, also those of other processes, and sqlstore then
// tries again. What was written survives a power cut (synchronous=FULL). What was
// deleted is overwritten in the file (secure_delete). The database has one
// connection, so the goroutines of one program take turns; for more, see
// [sql.DB.SetMaxOpenConns].
func Open(path string) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		err = create(path)
	}
	if err == nil {
		err = check(path)
	}
	var db *sql.DB
	if err == nil {
		db, err = sql.Open("sqlite", dsn(path))
	}
	if err != nil {
		remedy := "See whether the folder exists and may be written."
		if why := (*refusal)(nil); errors.As(err, &why) {
			remedy = why.remedy
		}
		return nil, &persistence.Error{Op: "open", Backend: "sql", Location: path, Err: err, Remedy: remedy}
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
	// A umask such as 0777 takes away the owner's rights too.
	return errors.Join(f.Chmod(0o600), f.Close())
}

// check fails if another user may have made, or may replace, what SQLite would
// read.
func check(path string) error {
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return err
	}
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		info, err := os.Lstat(path + suffix)
		if errors.Is(err, fs.ErrNotExist) && suffix != "" {
			continue
		}
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return refuse("Name a regular file; if you did not make this one, remove it.", "%s is not a regular file", path+suffix)
		}
		if err := checkOwner(path+suffix, info); err != nil {
			return err
		}
	}
	return nil
}

// refusal is why a file or a folder is not used.
type refusal struct{ reason, remedy string }

func refuse(remedy, format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), remedy}
}

func (r *refusal) Error() string { return r.reason }
func (r *refusal) Unwrap() error { return fs.ErrPermission }

func dsn(path string) string {
	u := url.URL{Path: filepath.ToSlash(path)}
	if u.Path[0] != '/' {
		u.Path = "/" + u.Path // a drive's letter
	}
	return "file:" + u.EscapedPath() + "?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=secure_delete(ON)"
}
