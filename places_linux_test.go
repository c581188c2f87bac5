package tokenkeep_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/shell"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// The tests of this file run the test program as another user, in a place that is
// made for it, with what it is to be in this variable: a user id.
const visitorVariable = "TOKENKEEP_VISITOR"

// visit is what a program has seen in a place.
type visit struct {
	Opened          bool
	Err, Remedy     string
	Had             string // before it signed in
	SaveErr, SaveDo string
	Warnings        []fallback.Warning
}

const (
	visitor = 4711 // has no entry in /etc/passwd
	owner   = 4712
)

// TestVisitor is such a program: it signs in once.
func TestVisitor(t *testing.T) {
	uid, err := strconv.Atoi(os.Getenv(visitorVariable))
	if err != nil {
		return // no test of its own
	}
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)} {
		require.NoError(t, err)
	}
	var v visit
	keys := keyringtest.New()
	keys.SetAbsent(true)
	cfg := tokenkeep.Config{Name: "app", Keyring: keys, Strict: true, Logger: slog.New(slog.DiscardHandler), AllowPlaintext: os.Getenv("STORE") != "passphrase",
		Warn: func(w fallback.Warning) { v.Warnings = append(v.Warnings, w) }}
	if !cfg.AllowPlaintext {
		cfg.Passphrase = func(context.Context) ([]byte, error) { return []byte("words"), nil }
	}
	c, err := tokenkeep.Open(ctx, cfg)
	if v.Opened = err == nil; v.Opened {
		if v.Had, err = use(c); err != nil {
			v.SaveErr, v.SaveDo = err.Error(), persistence.Remedy(err)
		}
	} else {
		v.Err, v.Remedy = err.Error(), persistence.Remedy(err)
		var none *fallback.NoneError
		require.False(t, errors.As(err, &none), "the place is not to blame: %v", err)
	}
	require.NoError(t, json.NewEncoder(os.NewFile(3, "result")).Encode(v))
}

// visitAs runs the program with no other variables than those. If readOnly is not
// "", that folder is mounted read-only.
func visitAs(t *testing.T, uid int, readOnly string, variables ...string) (v visit) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	args := []string{exe, "-test.run=^TestVisitor$"}
	if readOnly != "" {
		script := `mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"`
		args = append([]string{"unshare", "-m", "sh", "-c", script, readOnly}, args...)
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), visitorVariable + "=" + strconv.Itoa(uid), "GORACE=atexit_sleep_ms=0"}, variables...)
	result, write, err := os.Pipe()
	require.NoError(t, err)
	defer result.Close()
	cmd.ExtraFiles = []*os.File{write}
	out, err := cmd.CombinedOutput()
	write.Close()
	require.NoError(t, err, string(out))
	require.NoError(t, json.NewDecoder(result).Decode(&v), string(out))
	return v
}

// newHome returns a folder that belongs to a user.
func newHome(t *testing.T, uid int) string {
	t.Helper()
	env.Require(t, os.Geteuid() == 0, "needs to be root, to act as other users")
	base, err := os.MkdirTemp("", "place")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	require.NoError(t, os.Chmod(base, 0o755))
	home := filepath.Join(base, "it's home")
	require.NoError(t, os.Mkdir(home, 0o755))
	require.NoError(t, os.Chown(home, uid, uid))
	return home
}

func giveTo(t *testing.T, uid, gid int, root string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, gid))
	}))
}

// A user without an entry in /etc/passwd has no home folder, or /. Then a variable
// names the folder, and the error says which.
func TestPlaceOfNoHome(t *testing.T) {
	home, foreign := newHome(t, visitor), newHome(t, 0)
	for name, variables := range map[string][]string{
		"no home": nil, "a home that cannot be written": {"HOME=" + foreign}, "a home that is not there": {"HOME=" + foreign + "/missing"},
	} {
		t.Run(name, func(t *testing.T) {
			v := visitAs(t, visitor, "", variables...)
			require.False(t, v.Opened)
			require.Regexp(t, `Set (XDG_DATA_HOME|it) to a folder that this user can write`, v.Remedy)
			require.Contains(t, v.Err+v.Remedy, "XDG_DATA_HOME")
			v = visitAs(t, visitor, "", append(variables, "XDG_DATA_HOME="+home)...)
			require.True(t, v.Opened, v)
			require.Empty(t, v.SaveErr)
		})
	}
	for _, variables := range [][]string{nil, {"HOME=/"}, {"HOME=/nonexistent"}} {
		state := newHome(t, visitor)
		v := visitAs(t, visitor, "", append(variables, "STATE_DIRECTORY="+state+":/var/lib/second")...)
		require.True(t, v.Opened, v)
		require.Empty(t, v.SaveErr)
		require.FileExists(t, filepath.Join(state, "tokenkeep", "app.plaintext.json"))
	}
}

// What a run with sudo has made root's, is given back by the command that the
// error names.
func TestPlaceThatSudoMadeRoots(t *testing.T) {
	for _, made := range []string{".local", ".local/share", ".local/share/tokenkeep"} {
		for _, mode := range []fs.FileMode{0o700, 0o755} {
			t.Run(made+" "+mode.String(), func(t *testing.T) {
				home := newHome(t, visitor)
				require.True(t, visitAs(t, visitor, "", "HOME="+home).Opened)
				giveTo(t, 0, 0, filepath.Join(home, made))
				require.NoError(t, os.Chmod(filepath.Join(home, made), mode))
				v := visitAs(t, visitor, "", "HOME="+home)
				require.False(t, v.Opened)
				_, command, ok := cutCommand(v.Remedy)
				require.True(t, ok, v.Remedy)
				require.Equal(t, "sudo chown -R 4711 "+shell.Quote(filepath.Join(home, made)), command)
				out, err := exec.Command("sh", "-c", `sudo() { "$@"; }; `+command).CombinedOutput()
				require.NoError(t, err, "%s: %s", command, out)
				v = visitAs(t, visitor, "", "HOME="+home)
				require.True(t, v.Opened, v)
				require.Contains(t, v.Had, planted)
			})
		}
	}
}

// A run with sudo leaves nothing of root's in the home of the one who called it.
func TestPlaceOfSudo(t *testing.T) {
	home := newHome(t, visitor)
	v := visitAs(t, 0, "", "HOME="+home, "SUDO_UID="+strconv.Itoa(visitor))
	require.False(t, v.Opened)
	require.Contains(t, v.Remedy, "without sudo")
	entries, err := os.ReadDir(home)
	require.NoError(t, err)
	require.Empty(t, entries)

	require.True(t, visitAs(t, visitor, "", "HOME="+home).Opened)
	v = visitAs(t, 0, "", "HOME="+home, "SUDO_UID="+strconv.Itoa(visitor))
	require.False(t, v.Opened)
	require.Contains(t, v.Remedy, "without sudo")
	require.NoError(t, filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		fi, err := d.Info()
		require.NoError(t, err)
		require.EqualValues(t, visitor, fi.Sys().(*syscall.Stat_t).Uid, path)
		return nil
	}))

	// The control: where root is nobody's guest, as in a container, it makes folders.
	other := newHome(t, visitor)
	require.True(t, visitAs(t, 0, "", "HOME="+other).Opened)
	require.DirExists(t, filepath.Join(other, ".local"))
	root := newHome(t, 0)
	require.True(t, visitAs(t, 0, "", "HOME="+root, "SUDO_UID="+strconv.Itoa(visitor)).Opened)
}

// A folder of another user, as a container sees one of the host.
func TestPlaceOfAnotherUser(t *testing.T) {
	home := newHome(t, owner)
	require.True(t, visitAs(t, owner, "", "XDG_DATA_HOME="+home).Opened)
	require.NoError(t, os.Chmod(filepath.Join(home, "tokenkeep"), 0o755))
	v := visitAs(t, visitor, "", "XDG_DATA_HOME="+home)
	require.False(t, v.Opened)
	require.Contains(t, v.Err, "folder of user 4712, and this program runs as user 4711")
	require.Contains(t, v.Remedy, "--user 4712")
	_, command, ok := cutCommand(v.Remedy)
	require.True(t, ok, v.Remedy)
	out, err := exec.Command("sh", "-c", `sudo() { "$@"; }; `+command).CombinedOutput()
	require.NoError(t, err, "%s: %s", command, out)
	v = visitAs(t, visitor, "", "XDG_DATA_HOME="+home)
	require.True(t, v.Opened, v)
	require.Contains(t, v.Had, planted)
}

// On a read-only file system a stored cache can be read, and what cannot be saved
// is said. The volume may be one that Kubernetes has opened to a group.
func TestPlaceThatIsReadOnly(t *testing.T) {
	newHome(t, visitor) // needs root
	env.Require(t, env.CanMount(), "needs unshare and to mount, as root")
	const group = 4713
	for name, modes := range map[string][2]fs.FileMode{
		"ours": {0o700, 0o600}, "a volume of a group": {0o770 | fs.ModeSetgid, 0o660}, "a read-only volume of a group": {0o750 | fs.ModeSetgid, 0o640},
	} {
		for _, store := range []string{"plaintext", "passphrase"} {
			if store == "passphrase" && name == "a volume of a group" {
				continue // it costs seconds
			}
			t.Run(name+"/"+store, func(t *testing.T) {
				home := newHome(t, visitor)
				variables := []string{"XDG_DATA_HOME=" + home, "STORE=" + store}
				v := visitAs(t, visitor, "", variables...)
				require.True(t, v.Opened, v)
				require.Empty(t, v.SaveErr)
				giveTo(t, visitor, group, filepath.Join(home, "tokenkeep"))
				require.NoError(t, filepath.WalkDir(filepath.Join(home, "tokenkeep"), func(path string, d fs.DirEntry, err error) error {
					if d.IsDir() {
						return os.Chmod(path, modes[0])
					}
					return os.Chmod(path, modes[1])
				}))
				v = visitAs(t, visitor, home, variables...)
				require.True(t, v.Opened, v)
				require.Contains(t, v.Had, planted)
				require.Contains(t, v.SaveErr, "read-only file system")
				require.Contains(t, v.SaveDo, "Use a folder that can be written")
				if store == "plaintext" {
					require.Len(t, v.Warnings, 1)
					require.Contains(t, v.Warnings[0].Message, "cannot be saved")
					require.Contains(t, v.Warnings[0].Remedy, "read-only")
				}
			})
		}
	}
	home := newHome(t, visitor)
	for _, there := range []bool{false, true} {
		v := visitAs(t, visitor, home, "XDG_DATA_HOME="+home)
		require.False(t, v.Opened)
		require.Contains(t, v.Err, "read-only file system")
		require.Contains(t, v.Remedy, "Set XDG_DATA_HOME to a folder that this user can write.")
		if !there {
			require.NoError(t, os.Mkdir(filepath.Join(home, "tokenkeep"), 0o700))
			require.NoError(t, os.Chown(filepath.Join(home, "tokenkeep"), visitor, visitor))
		}
	}
}

// cutCommand returns the command that a remedy ends in.
func cutCommand(remedy string) (text, command string, ok bool) {
	return strings.Cut(remedy, " with: ")
}
