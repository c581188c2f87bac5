//go:build unix

package securefile_test

import (
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

func modeOf(t testing.TB, path string) fs.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	require.NoError(t, err)
	return fi.Mode()
}

// Under no umask a folder or a file is made that a later run cannot use, nor in
// a folder that gives its group on.
func TestNoUmaskBlocksLaterRuns(t *testing.T) {
	needRoot(t)
	for _, umask := range []int{0, 0o077, 0o277, 0o777} {
		dir := publicTempDir(t)
		require.NoError(t, os.Chown(dir, nobody, nobody))
		require.NoError(t, os.Chmod(dir, 0o700|fs.ModeSetgid))
		path := filepath.Join(dir, "a", "b", "cache")
		old := syscall.Umask(umask)
		out, err := asNobody(t, "replace", path, "content")
		syscall.Umask(old)
		require.NoError(t, err, out)
		out, err = asNobody(t, "make empty", path+".lock")
		require.NoError(t, err, out)
		out, err = asNobody(t, "read", path)
		require.NoError(t, err, out)
		require.Equal(t, fs.ModeDir|0o700, modeOf(t, filepath.Dir(path)))
		require.Equal(t, fs.ModeDir|0o700, modeOf(t, filepath.Join(dir, "a")))
		require.Equal(t, fs.FileMode(0o600), modeOf(t, path+".lock"))
	}
}

// What a process left that was killed before it could set the modes is mended.
func TestModesOfKilledProcessesAreMended(t *testing.T) {
	needRoot(t)
	dir := publicTempDir(t)
	path := filepath.Join(dir, "cache.lock")
	require.NoError(t, writeMode(path, 0))
	for _, p := range []string{dir, path} {
		require.NoError(t, os.Chown(p, nobody, nobody))
	}
	require.NoError(t, os.Chmod(dir, 0))
	out, err := asNobody(t, "make empty", path)
	require.NoError(t, err, out)
	require.Equal(t, fs.FileMode(0o600), modeOf(t, path))
	require.Equal(t, fs.ModeDir|0o700, modeOf(t, dir))
}

// A lock file that others can read is closed to them. One that others can write
// is refused: what stands in it may be theirs.
func TestMakeEmptyNarrows(t *testing.T) {
	for mode, fine := range map[fs.FileMode]bool{0o644: true, 0o640: true, 0o604: true, 0o444: true, 0o400: true, 0o755: true, 0o600: true, 0o622: false, 0o606: false, 0o666: false} {
		path := filepath.Join(t.TempDir(), "cache.lock")
		require.NoError(t, writeMode(path, mode))
		err := securefile.MakeEmpty(path)
		if fine {
			require.NoError(t, err, mode)
			require.Equal(t, fs.FileMode(0o600), modeOf(t, path))
		} else {
			require.ErrorIs(t, err, fs.ErrPermission)
			require.Equal(t, mode, modeOf(t, path))
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "x", string(data), "what is in it stays")
	}
}

// A volume that is mounted with a group of its own opens what was made closed:
// folders become 2770, files 0660. That is taken back; what others may have made
// or opened is not.
func TestVolumeOfAGroup(t *testing.T) {
	needRoot(t)
	const group = 4711
	mount := func(t *testing.T, paths ...string) {
		for _, p := range paths {
			require.NoError(t, os.Chown(p, nobody, group))
			mode := fs.FileMode(0o660)
			if modeOf(t, p).IsDir() {
				mode = 0o770 | fs.ModeSetgid
			}
			require.NoError(t, os.Chmod(p, mode))
		}
	}
	setup := func(t *testing.T) (volume, dir, path string) {
		volume = publicTempDir(t)
		require.NoError(t, os.Chown(volume, 0, group))
		require.NoError(t, os.Chmod(volume, 0o777|fs.ModeSetgid))
		dir = filepath.Join(volume, "tokens")
		path = filepath.Join(dir, "cache")
		out, err := asNobody(t, "replace", path, "content")
		require.NoError(t, err, out)
		out, err = asNobody(t, "make empty", path+".lock")
		require.NoError(t, err, out)
		return volume, dir, path
	}
	for _, gid := range []int{group, nobody} { // the user's private group is the usual one
		for _, first := range []string{"read", "replace", "make empty", "remove"} {
			_, dir, path := setup(t)
			mount(t, dir, path, path+".lock")
			for _, p := range []string{dir, path, path + ".lock"} {
				require.NoError(t, os.Chown(p, nobody, gid))
				require.NoError(t, os.Chmod(p, modeOf(t, p)))
			}
			if gid == group {
				out, err := asNobody(t, "check folder", dir)
				require.Error(t, err, "a check changes nothing")
				require.Contains(t, out, "group 4711 can write")
			}
			args := map[string][]string{"read": {path}, "replace": {path, "content"}, "make empty": {path + ".lock"}, "remove": {path + ".lock"}}[first]
			out, err := asNobody(t, first, args...)
			require.NoError(t, err, "%s: %s", first, out)
			if gid == group || first == "read" {
				require.Equal(t, fs.ModeDir|0o700, modeOf(t, dir), first)
			}
			out, err = asNobody(t, "read", path)
			require.NoError(t, err, out)
			require.Equal(t, "content", out)
			require.Equal(t, fs.FileMode(0o600), modeOf(t, path))
		}
	}
	for name, change := range map[string]func(volume, dir, path string) error{
		"a file of another user is in it": func(_, dir, _ string) error { return os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600) },
		"a file is open to others": func(_, dir, path string) error {
			if err := os.WriteFile(path+".other", nil, 0o600); err != nil {
				return err
			}
			if err := os.Chown(path+".other", nobody, nobody); err != nil {
				return err
			}
			return os.Chmod(path+".other", 0o644)
		},
		"a link is in it":    func(_, dir, _ string) error { return os.Symlink("x", filepath.Join(dir, "link")) },
		"it is empty":        func(_, _, path string) error { os.Remove(path + ".lock"); return os.Remove(path) },
		"it has other modes": func(_, dir, _ string) error { return os.Chmod(dir, 0o775) },
	} {
		t.Run(name, func(t *testing.T) {
			volume, dir, path := setup(t)
			mount(t, dir, path, path+".lock")
			require.NoError(t, change(volume, dir, path))
			before := modeOf(t, dir)
			out, err := asNobody(t, "replace", path, "content")
			require.Error(t, err)
			require.Contains(t, out, "group 4711 can write")
			require.Contains(t, out, "chmod 700 "+dir)
			require.Equal(t, before, modeOf(t, dir))
		})
	}
	t.Run("the volume itself", func(t *testing.T) {
		volume, _, _ := setup(t)
		require.NoError(t, os.Chmod(volume, 0o775|fs.ModeSetgid))
		out, err := asNobody(t, "replace", filepath.Join(volume, "cache"), "content")
		require.Error(t, err)
		require.Contains(t, out, "Use a new folder below it")
	})
}

// An access control list that lets somebody else write the folder counts as a
// mode that does. The control are lists that grant nothing to others.
func TestAccessControlLists(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // they are only read on Linux
	}
	const (
		owner, user, owning, group, mask, other = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

		none = ^uint32(0)
	)
	type entry struct {
		tag, rights uint16
		id          uint32
	}
	me := uint32(os.Geteuid())
	for _, tt := range []struct {
		name    string
		entries []entry
		refused string // "" means it is fine
	}{
		{"another user writes", []entry{{owner, 7, none}, {user, 7, 4711}, {owning, 0, none}, {mask, 7, none}, {other, 0, none}}, "user 4711 can write"},
		{"another group writes", []entry{{owner, 7, none}, {owning, 0, none}, {group, 2, 4712}, {mask, 7, none}, {other, 0, none}}, "group 4712 can write"},
		{"the second user writes", []entry{{owner, 7, none}, {user, 5, 4710}, {user, 3, 4711}, {owning, 0, none}, {mask, 7, none}, {other, 0, none}}, "user 4711 can write"},
		{"another user reads", []entry{{owner, 7, none}, {user, 5, 4711}, {owning, 7, none}, {mask, 7, none}, {other, 0, none}}, ""},
		{"the mask takes it away", []entry{{owner, 7, none}, {user, 7, 4711}, {owning, 7, none}, {mask, 5, none}, {other, 0, none}}, ""},
		{"the user", []entry{{owner, 7, none}, {user, 7, me}, {owning, 7, none}, {mask, 7, none}, {other, 0, none}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Chmod(dir, 0o700))
			list := binary.LittleEndian.AppendUint32(nil, 2)
			for _, e := range tt.entries {
				list = binary.LittleEndian.AppendUint16(list, e.tag)
				list = binary.LittleEndian.AppendUint16(list, e.rights)
				list = binary.LittleEndian.AppendUint32(list, e.id)
			}
			setACL(t, dir, list)
			path := filepath.Join(dir, "cache")
			_, err := securefile.Replace(t.Context(), path, []byte("x"))
			if tt.refused == "" {
				require.NoError(t, err)
				// A list of the file itself that lets others read it shows in its mode.
				setACL(t, path, list)
				_, _, err = securefile.Read(t.Context(), path, limit)
				require.ErrorContains(t, err, "open to other users")
				return
			}
			require.ErrorContains(t, err, tt.refused)
			require.ErrorContains(t, securefile.CheckDir(dir), tt.refused)
			require.Empty(t, entries(t, dir))
		})
	}
}

// The commands in remedies are ones that a shell understands, whatever the path
// is called.
func TestRemediesAreQuoted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's\x1b[2J $(x)")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "cache")
	require.NoError(t, writeMode(path, 0o644))
	_, _, err := securefile.Read(t.Context(), path, limit)
	var e *securefile.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Remedy(), `it\'s\033[2J $(x)/cache'`)
	require.False(t, strings.ContainsRune(e.Remedy(), 0x1b))
}
