//go:build unix

package securefile_test

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// What is not a regular file with one name, closed to others, is refused, by
// Read and ReadHead and, but for the mode, by Replace and Remove; nothing hangs,
// and what is there stays as it is.
func TestRefusals(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.WriteFile(secret, []byte("elsewhere"), 0o600))
	for _, tt := range []struct {
		name, reason string
		make         func(path string) error
		writable     bool // Replace and Remove mend it
	}{
		{"symbolic link", "a symbolic link", func(p string) error { return os.Symlink(secret, p) }, false},
		{"dangling link", "a symbolic link", func(p string) error { return os.Symlink(p+".no", p) }, false},
		{"FIFO", "a FIFO", func(p string) error { return syscall.Mkfifo(p, 0o600) }, false},
		{"folder", "a folder", func(p string) error { return os.Mkdir(p, 0o700) }, false},
		{"socket", "a socket", func(p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}, false},
		{"hard link", "2 names", func(p string) error {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Link(p, p+".other")
		}, false},
		{"mode 0640", "mode 0640", func(p string) error { return writeMode(p, 0o640) }, true},
		{"mode 0604", "mode 0604", func(p string) error { return writeMode(p, 0o604) }, true},
		{"mode 0620", "mode 0620", func(p string) error { return writeMode(p, 0o620) }, true},
		{"mode 0601", "mode 0601", func(p string) error { return writeMode(p, 0o601) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(shortTempDir(t), "cache")
			require.NoError(t, tt.make(path))
			before, err := os.Lstat(path)
			require.NoError(t, err)
			refused := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, fs.ErrPermission)
				require.NotErrorIs(t, err, fs.ErrNotExist)
				var e *securefile.Error
				require.ErrorAs(t, err, &e)
				require.Contains(t, e.Reason, tt.reason)
				require.Equal(t, path, e.Path)
				require.NotEmpty(t, e.Remedy())
			}
			_, _, err = securefile.Read(t.Context(), path, limit)
			refused(err)
			_, _, err = securefile.ReadHead(t.Context(), path, 10)
			refused(err)
			if tt.writable {
				_, err = securefile.Replace(t.Context(), path, []byte("x"))
				require.NoError(t, err)
				_, _, err = securefile.Read(t.Context(), path, limit)
				require.NoError(t, err)
				return
			}
			_, err = securefile.Open(t.Context(), path, os.O_RDWR)
			refused(err)
			_, err = securefile.Replace(t.Context(), path, []byte("x"))
			refused(err)
			refused(securefile.Remove(t.Context(), path))
			after, err := os.Lstat(path)
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after))
		})
	}
	data, err := os.ReadFile(secret)
	require.NoError(t, err)
	require.Equal(t, "elsewhere", string(data))
}

// shortTempDir is a t.TempDir whose path is short enough for a socket.
func shortTempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "tk")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func writeMode(path string, mode os.FileMode) error {
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// The file and the folders made for it are private whatever the umask is and
// whatever was there before.
func TestModes(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o277, 0o777} {
		for _, before := range []os.FileMode{0, 0o600, 0o644, 0o400} { // 0: nothing is there
			dir := t.TempDir()
			path := filepath.Join(dir, "cache")
			if before != 0 {
				require.NoError(t, writeMode(path, before))
			}
			old := syscall.Umask(umask)
			_, err := securefile.Replace(t.Context(), path, []byte("x"))
			syscall.Umask(old)
			require.NoError(t, err, "umask %o", umask)
			fi, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), fi.Mode(), "umask %o, before %o", umask, before)
		}
	}
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	require.NoError(t, securefile.MkdirAll(filepath.Join(dir, "a", "b")))
	for _, d := range []string{"a", "a/b"} {
		fi, err := os.Stat(filepath.Join(dir, d))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700)|fs.ModeDir, fi.Mode())
	}
	require.NoError(t, writeMode(filepath.Join(dir, "file"), 0o600))
	require.Error(t, securefile.MkdirAll(filepath.Join(dir, "file")))
	require.Error(t, securefile.MkdirAll(filepath.Join(dir, "file", "b")))
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	real := filepath.Join(dir, "real")
	open := filepath.Join(dir, "open")
	sticky := filepath.Join(dir, "sticky")
	for d, mode := range map[string]os.FileMode{real: 0o700, open: 0o777, sticky: 0o777 | fs.ModeSticky} {
		require.NoError(t, os.Mkdir(d, 0o700))
		require.NoError(t, os.Chmod(d, mode))
	}
	link := func(at, to string) string {
		require.NoError(t, os.Symlink(to, filepath.Join(dir, at)))
		return filepath.Join(dir, at)
	}
	target := filepath.Join(real, "cache") // need not be there
	for name, path := range map[string]string{
		"no link":            target,
		"absolute":           link("absolute", target),
		"relative":           link("relative", "real/cache"),
		"of a link":          link("twice", "relative"),
		"through a folder's": filepath.Join(link("folder", "real"), "cache"),
	} {
		got, err := securefile.Resolve(path)
		require.NoError(t, err, name)
		if name == "through a folder's" {
			require.Equal(t, path, got) // the system follows it
			continue
		}
		require.Equal(t, target, got, name)
	}
	// ".." in a link is that of the folder where the link really lies.
	require.NoError(t, os.Mkdir(filepath.Join(real, "sub"), 0o700))
	require.NoError(t, os.Symlink("../cache", filepath.Join(real, "sub", "up")))
	got, err := securefile.Resolve(filepath.Join(link("sub", "real/sub"), "up"))
	require.NoError(t, err)
	require.Equal(t, target, got)

	for name, path := range map[string]string{
		"circle":               link("circle", "circle"),
		"into an open folder":  link("into", filepath.Join(open, "cache")),
		"into a sticky folder": link("into2", filepath.Join(sticky, "cache")),
		"in an open folder":    link("open/from", target),
		"in a sticky folder":   link("sticky/from", target),
		"to a missing folder":  link("missing", filepath.Join(dir, "missing folder", "cache")),
	} {
		_, err := securefile.Resolve(path)
		require.Error(t, err, name)
	}
	t.Chdir(real)
	got, err = securefile.Resolve("cache")
	require.NoError(t, err)
	require.True(t, filepath.IsAbs(got))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 && runtime.GOOS == "linux" {
		return
	}
	if os.Getenv("CI") == "true" && runtime.GOOS == "linux" {
		t.Fatal("needs to be root, to act as two users")
	}
	t.Skip("needs Linux and root, to act as two users")
}

const nobody = 65534

// asNobody runs a child as another user than root.
func asNobody(t *testing.T, mode string, args ...string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), childMode+"="+mode, childUser+"="+strconv.Itoa(nobody), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Which folders a user other than root may keep files in.
func TestFolders(t *testing.T) {
	needRoot(t)
	const other = 4711
	for _, tt := range []struct {
		name     string
		uid, gid int
		mode     os.FileMode
		refused  string // "" means it is fine
	}{
		{"own", nobody, nobody, 0o700, ""},
		{"own, readable", nobody, nobody, 0o755, ""},
		{"own, private group writes", nobody, nobody, 0o770, ""},
		{"own, root's group writes", nobody, 0, 0o770, ""},
		{"own, a group writes", nobody, other, 0o770, "group 4711"},
		{"own, everybody writes", nobody, nobody, 0o777, "every user"},
		{"own, everybody writes, sticky", nobody, nobody, 0o777 | fs.ModeSticky, ""},
		{"root's, everybody writes, sticky", 0, 0, 0o777 | fs.ModeSticky, ""},
		{"root's, everybody writes", 0, 0, 0o777, "every user"},
		{"root's, the user's group writes", 0, nobody, 0o770, ""},
		{"another's, everybody writes, sticky", other, other, 0o777 | fs.ModeSticky, "user 4711"},
		{"another's, the user's group writes", other, nobody, 0o770, "user 4711"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := publicTempDir(t)
			require.NoError(t, os.Chown(dir, tt.uid, tt.gid))
			require.NoError(t, os.Chmod(dir, tt.mode))
			path := filepath.Join(dir, "cache")
			out, err := asNobody(t, "replace", path, "content")
			if tt.refused == "" {
				require.NoError(t, err, out)
			} else {
				require.Error(t, err)
				require.Contains(t, out, tt.refused)
				require.Contains(t, out, "stored=old")
				require.Empty(t, entries(t, dir))
				require.NoError(t, os.WriteFile(path, []byte("content"), 0o600))
				require.NoError(t, os.Chown(path, nobody, nobody))
			}
			out, err = asNobody(t, "read", path)
			if tt.refused == "" {
				require.NoError(t, err, out)
				require.Equal(t, "content", out)
			} else {
				require.Error(t, err)
				require.Contains(t, out, tt.refused)
			}
		})
	}
}

// publicTempDir is a folder that other users can get to.
func publicTempDir(t *testing.T) string {
	dir := shortTempDir(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	sub := filepath.Join(dir, "folder")
	require.NoError(t, os.Mkdir(sub, 0o700))
	return sub
}

// Files of other users are refused, whatever they are, in every kind of folder.
func TestOtherUsersFiles(t *testing.T) {
	needRoot(t)
	for _, mode := range []os.FileMode{0o755, 0o777, 0o777 | fs.ModeSticky} {
		for name, plant := range map[string]func(path string) error{
			"closed file": func(p string) error { return writeMode(p, 0o600) },
			"open file":   func(p string) error { return writeMode(p, 0o666) },
			"link":        func(p string) error { return os.Symlink("/etc/passwd", p) },
			"FIFO":        func(p string) error { return syscall.Mkfifo(p, 0o666) },
		} {
			t.Run(mode.String()+" "+name, func(t *testing.T) {
				dir := publicTempDir(t)
				require.NoError(t, os.Chmod(dir, mode))
				path := filepath.Join(dir, "cache")
				require.NoError(t, plant(path)) // by root
				for _, args := range [][]string{{"read", path}, {"replace", path, "x"}, {"remove", path}} {
					out, err := asNobody(t, args[0], args[1:]...)
					require.Error(t, err)
					require.True(t, strings.Contains(out, "belongs to user 0") || strings.Contains(out, "a symbolic link") ||
						strings.Contains(out, "a FIFO") || strings.Contains(out, "every user can write") || strings.Contains(out, "open folder"), out)
					require.NotContains(t, out, "root:")
				}
				_, err := os.Lstat(path)
				require.NoError(t, err)
			})
		}
	}
	// The other way round: root does not take over a user's file.
	dir := t.TempDir()
	path := filepath.Join(dir, "cache")
	require.NoError(t, writeMode(path, 0o600))
	require.NoError(t, os.Chown(path, nobody, nobody))
	_, _, err := securefile.Read(t.Context(), path, limit)
	require.ErrorContains(t, err, "belongs to user 65534")
	_, err = securefile.Replace(t.Context(), path, nil)
	require.ErrorContains(t, err, "belongs to user 65534")
	var e *securefile.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Remedy(), "as user 65534, without sudo")
}

// A left-over temporary file that is another's, a link or a FIFO is left alone.
func TestForeignLeftovers(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "cache")
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, writeMode(elsewhere, 0o600))
	foreign := leftover(t, dir, "cache", "0")
	require.NoError(t, os.Chown(filepath.Join(dir, foreign), nobody, nobody))
	link := ".cache.1.tmp"
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(dir, link)))
	fifo := ".cache.3.tmp"
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, fifo), 0o600))
	_, err := securefile.Replace(t.Context(), path, []byte("x"))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{foreign, link, fifo, "cache"}, entries(t, dir))
	require.FileExists(t, elsewhere)
}
