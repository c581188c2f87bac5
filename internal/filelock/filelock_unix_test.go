//go:build unix

package filelock_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// A lock file that is not a proper one is refused, at once, and not touched. So
// is one behind which somebody already waits.
func TestRefusedLockFiles(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.WriteFile(elsewhere, []byte("elsewhere"), 0o600))
	for name, plant := range map[string]func(path string) error{
		"symbolic link": func(p string) error { return os.Symlink(elsewhere, p) },
		"dangling link": func(p string) error { return os.Symlink(elsewhere+".no", p) },
		"FIFO":          func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"folder":        func(p string) error { return os.Mkdir(p, 0o700) },
		"hard link":     func(p string) error { return os.Link(elsewhere, p) },
		"writable by others": func(p string) error {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Chmod(p, 0o666)
		},
		"of another user": func(p string) error {
			if os.Geteuid() != 0 {
				return os.Symlink(elsewhere, p) // only root can give files away
			}
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Chown(p, 65534, 65534)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := lockPath(t)
			require.NoError(t, plant(path))
			_, err := filelock.New(path, true).Lock(t.Context())
			require.ErrorIs(t, err, fs.ErrPermission)
			var e *securefile.Error
			require.ErrorAs(t, err, &e)
			_, _, ok := filelock.Holder(path)
			require.False(t, ok)
			require.Error(t, filelock.WriteNote(path, "note"))

			// Locked by somebody: the refusal does not wait for them.
			f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
			if err == nil {
				defer f.Close()
				require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
				_, err = filelock.New(path, true).Lock(t.Context())
				require.ErrorIs(t, err, fs.ErrPermission)
			}
		})
	}
	data, err := os.ReadFile(elsewhere)
	require.NoError(t, err)
	require.Equal(t, "elsewhere", string(data))
	require.NoFileExists(t, elsewhere+".no")
}

// A lock file that others may read is used: there is nothing secret in it.
func TestReadableLockFile(t *testing.T) {
	path := lockPath(t)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Chmod(path, 0o644))
	must(t, filelock.New(path, true))()
}

func TestLockFileModes(t *testing.T) {
	path := lockPath(t)
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	must(t, filelock.New(path, true))()
	for _, p := range []string{path, path + ".turn"} {
		fi, err := os.Lstat(p)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), fi.Mode())
	}
}

func TestOpenFolder(t *testing.T) {
	path := lockPath(t)
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o777))
	_, err := filelock.New(path, true).Lock(t.Context())
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NoFileExists(t, path)
}
