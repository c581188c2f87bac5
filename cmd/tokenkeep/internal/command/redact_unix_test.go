//go:build linux || darwin

package command

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

func atHome(t *testing.T, home, user string) *call {
	t.Helper()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	env := map[string]string{"USER": user, "SUDO_USER": "carol"}
	return &call{Machine: &Machine{Env: func(name string) string { return env[name] }}}
}

// otherHomes is where other users' home folders are.
const otherHomes = "/home"

func TestHide(t *testing.T) {
	c := atHome(t, "/srv/people/alice", "alice")
	for text, want := range map[string]string{
		"The folder /srv/people/alice/x, and /srv/people/alice.": "The folder ~/x, and ~.",
		"/srv/people/alice /srv/people/alice/a":                  "~ ~/a",
		"/srv/people/alice2/x, /srv/people/alice.old/x":          "/srv/people/alice2/x, /srv/people/alice.old/x",
		"/mnt/srv/people/alice/x":                                "/mnt/srv/people/alice/x",
		otherHomes + "/alice/x and (/Users/carol)":               otherHomes + "/USER/x and (/Users/USER)",
		`C:\Users\alice\x`:                                       `C:\Users\USER\x`,
		"/srv/alice/x, /backup" + otherHomes + "/alice":          "/srv/alice/x, /backup" + otherHomes + "/alice",
		"alice keeps it":                                         "alice keeps it",
	} {
		require.Equal(t, want, c.redact(text))
	}
	c.names = true
	require.Equal(t, "/srv/people/alice/x", c.redact("/srv/people/alice/x"))
}

func TestCommandPath(t *testing.T) {
	c := atHome(t, "/srv/people/alice", "alice")
	for path, want := range map[string]string{
		"/srv/people/alice":          "~",
		"/srv/people/alice/.a/b":     "~/.a/b",
		"/srv/people/alice/my files": "~/'my files'",
		"/srv/people/alice/it's":     `~/'it'\''s'`,
		"/srv/people/alice/~x":       `~/'~x'`,
		"/srv/people/alice2/x":       "/srv/people/alice2/x",
		otherHomes + "/alice/$x":     "'" + otherHomes + "/alice/$x'",
		"/srv/alice/srv/alice":       "/srv/alice/srv/alice",
		"~x":                         `'~x'`,
	} {
		require.Equal(t, want, c.commandPath(path))
	}
	c.names = true
	require.Equal(t, "/srv/people/alice/.a/b", c.commandPath("/srv/people/alice/.a/b"))
}

// The commands that the doctor prints work when they are pasted, whatever the
// folders are called; also where a folder has the user's name.
func TestDoctorsCommandsWork(t *testing.T) {
	shell, err := exec.LookPath("sh")
	require.NoError(t, err)
	for _, below := range []string{"tokens", "alice", filepath.Join("my alice's", "alice", "$(touch x)")} {
		for _, inHome := range []bool{true, false} {
			home := filepath.Join(t.TempDir(), "alice")
			require.NoError(t, os.Mkdir(home, 0o700))
			dir := filepath.Join(home, below)
			if !inHome {
				dir = filepath.Join(t.TempDir(), "alice", below)
			}
			require.NoError(t, os.MkdirAll(dir, 0o700))
			for variable, value := range map[string]string{"HOME": home, "USER": "alice", "LOGNAME": "", "USERNAME": "", "SUDO_USER": ""} {
				t.Setenv(variable, value)
			}
			left := filepath.Join(dir, ".app.plaintext.json.0.tmp")
			require.NoError(t, os.WriteFile(left, nil, 0o600))
			out, _ := runIn(t, ExitProblem, keyringtest.New(), "doctor", "leftovers", "-json", "-dir", dir)
			var object struct {
				Result struct{ Checks []checkResult }
			}
			require.NoError(t, json.Unmarshal([]byte(out), &object))
			command := object.Result.Checks[0].Findings[0].Command
			require.NotContains(t, command, home)
			cmd := exec.CommandContext(t.Context(), shell, "-c", command)
			cmd.Dir = t.TempDir()
			text, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s\n%s", command, text)
			require.NoFileExists(t, left)
		}
	}
}
