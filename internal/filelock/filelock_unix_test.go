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

// A lock file that others can read is closed to them, as they could hold it. So
// is the turnstile, and one that a umask hid from its owner is opened to it.
func TestLockFilesAreNarrowed(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o400, 0} {
		path := lockPath(t)
		for _, p := range []string{path, path + ".turn"} {
			require.NoError(t, os.WriteFile(p, nil, 0o600))
			require.NoError(t, os.Chmod(p, mode))
		}
		unlock := must(t, filelock.New(path, true))
		for _, p := range []string{path, path + ".turn"} {
			fi, err := os.Lstat(p)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), fi.Mode())
		}
		unlock()
	}
}

// Whatever the umask is, lock files and the folders for them have their modes.
func TestLockFileModes(t *testing.T) {
	for _, umask := range []int{0, 0o077, 0o777} {
		path := filepath.Join(t.TempDir(), "a", "b", "cache.lock")
		old := syscall.Umask(umask)
		must(t, filelock.New(path, true))()
		syscall.Umask(old)
		for p, mode := range map[string]os.FileMode{
			path: 0o600, path + ".turn": 0o600,
			filepath.Dir(path): fs.ModeDir | 0o700, filepath.Dir(filepath.Dir(path)): fs.ModeDir | 0o700,
		} {
			fi, err := os.Lstat(p)
			require.NoError(t, err)
			require.Equal(t, mode, fi.Mode(), p)
		}
	}
}

func TestOpenFolder(t *testing.T) {
	path := lockPath(t)
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o777))
	_, err := filelock.New(path, true).Lock(t.Context())
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NoFileExists(t, path)
}
