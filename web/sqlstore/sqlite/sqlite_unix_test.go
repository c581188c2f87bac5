//go:build unix

package sqlite_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/env"
	"github.com/tokenkeep/tokenkeep/web/sqlstore/sqlite"
)

const nobody = 65534

// closed returns a folder of this user's only.
func closed(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "it's a folder")
	require.NoError(t, os.Mkdir(dir, 0o700))
	return dir
}

// use makes and uses a database as a program does.
func use(path string) error {
	db, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	_, err = db.Exec("CREATE TABLE IF NOT EXISTS t (x)")
	return errors.Join(err, db.Close())
}

func TestOpenRefuses(t *testing.T) {
	write := func(suffix string, mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+suffix, nil, mode))
			require.NoError(t, os.Chmod(path+suffix, mode))
		}
	}
	chown := func(suffix string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			env.Require(t, os.Geteuid() == 0, "needs root, to give a file to another user")
			write(suffix, 0o600)(t, path)
			require.NoError(t, os.Chown(path+suffix, nobody, nobody))
		}
	}
	folder := func(mode os.FileMode, uid, gid int) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if uid+gid > 0 {
				env.Require(t, os.Geteuid() == 0, "needs root, to give a folder to another user")
				require.NoError(t, os.Chown(filepath.Dir(path), uid, gid))
			}
			require.NoError(t, os.Chmod(filepath.Dir(path), mode))
		}
	}
	for name, test := range map[string]struct {
		prepare      func(t *testing.T, path string)
		reason, does string // what the error says; "" is a control
	}{
		"nothing":           {func(*testing.T, string) {}, "", ""},
		"own":               {write("", 0o600), "", ""},
		"own, of a crash":   {func(t *testing.T, path string) { write("", 0o600)(t, path); write("-wal", 0o600)(t, path) }, "", ""},
		"0644":              {write("", 0o644), "open to other users (mode 0644)", "chmod 600 '"},
		"0660":              {write("", 0o660), "open to other users (mode 0660)", `/it'\''s a folder/app.db'`},
		"0644, journal":     {write("-journal", 0o644), "app.db-journal is open to other users", "app.db-journal'"},
		"0666, log":         {write("-wal", 0o666), "app.db-wal is open to other users", "app.db-wal'"},
		"0666, index":       {write("-shm", 0o666), "app.db-shm is open to other users", "app.db-shm'"},
		"another's":         {chown(""), "belongs to user 65534", "sudo chown 0 '"},
		"another's log":     {chown("-wal"), "app.db-wal belongs to user 65534", "app.db-wal'"},
		"another's journal": {chown("-journal"), "app.db-journal belongs to user 65534", "app.db-journal'"},
		"a link": {func(t *testing.T, path string) {
			write(".other", 0o600)(t, path)
			require.NoError(t, os.Symlink("app.db.other", path))
		}, "not a regular file", "regular file"},
		"a link that leads nowhere": {func(t *testing.T, path string) { require.NoError(t, os.Symlink("none", path)) }, "not a regular file", "regular file"},
		"a log that is a link": {func(t *testing.T, path string) {
			write(".other", 0o600)(t, path)
			require.NoError(t, os.Symlink("app.db.other", path+"-wal"))
		}, "app.db-wal is not a regular file", "remove it"},
		"a FIFO":                    {func(t *testing.T, path string) { require.NoError(t, syscall.Mkfifo(path, 0o600)) }, "not a regular file", "regular file"},
		"a folder":                  {func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) }, "not a regular file", "regular file"},
		"a readable folder":         {folder(0o755, 0, 0), "", ""},
		"everybody's folder":        {folder(0o777, 0, 0), "every user can write the folder", "mkdir -m 700 '"},
		"everybody's sticky folder": {folder(0o777|os.ModeSticky, 0, 0), "every user can write the folder", "mkdir -m 700 '"},
		"another's folder":          {folder(0o755, nobody, nobody), "belongs to user 65534", "mkdir -m 700 '"},
		"a group's folder":          {folder(0o770, 0, nobody), "group 65534 can write the folder", "mkdir -m 700 '"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(closed(t), "app.db")
			test.prepare(t, path)
			err := use(path)
			if test.reason == "" {
				require.NoError(t, err)
				require.NoError(t, use(path), "what it has made itself")
				return
			}
			var e *persistence.Error
			require.ErrorAs(t, err, &e)
			require.ErrorIs(t, err, fs.ErrPermission)
			require.ErrorContains(t, e.Err, test.reason)
			require.Contains(t, e.Remedy, test.does)
		})
	}
}

// The remedies are commands that work.
func TestOpenAfterTheRemedy(t *testing.T) {
	path := filepath.Join(closed(t), "app.db")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Chmod(path, 0o644))
	require.Error(t, use(path))
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, use(path))
}

func TestOpenUnderAnyUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o777} {
		path := filepath.Join(closed(t), "app.db")
		old := syscall.Umask(umask)
		err := use(path)
		syscall.Umask(old)
		require.NoError(t, err, "%04o", umask)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode(), "%04o", umask)
	}
}
