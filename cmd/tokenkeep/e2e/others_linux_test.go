package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/cmd/tokenkeep/internal/sample"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

const azureCLIClientID = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"

// azureCLI gives the user a cache of Azure CLI's, and returns its path.
func (u *user) azureCLI(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(u.home, ".azure")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "msal_token_cache.json")
	text := strings.ReplaceAll(string(sample.Cache(time.Now())), "11111111-2222-4333-8444-555555555555", azureCLIClientID)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// ended returns the number of a process that is not there any more.
func ended(t *testing.T) int {
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	return cmd.Process.Pid
}

// leaveLock leaves a lock file beside the cache, as a process does that was killed
// an hour ago.
func leaveLock(t *testing.T, path, note string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".lockfile", []byte(note), 0o600))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path+".lockfile", old, old))
}

// stateOf is all that can be seen of a folder: bytes, inodes, modes, times.
func stateOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %v %d %d %d %v %v", path, fi.Mode(), st.Ino, st.Nlink, st.Size, st.Mtim, st.Ctim)
		if fi.Mode().IsRegular() {
			fmt.Fprintf(&b, " %v", st.Atim)
		}
		fmt.Fprintln(&b)
		return nil
	}))
	return b.String()
}

// No command leaves a trace in another program's folder, in whatever state that
// is.
func TestOthersAreOnlyLookedAt(t *testing.T) {
	spoil := map[string]func(path string){
		"sound":       func(string) {},
		"half":        func(path string) { require.NoError(t, os.Truncate(path, 100)) },
		"empty":       func(path string) { require.NoError(t, os.Truncate(path, 0)) },
		"open":        func(path string) { require.NoError(t, os.Chmod(path, 0o644)) },
		"a lock left": func(path string) { leaveLock(t, path, fmt.Sprintf("%d az", ended(t))) },
		"null section": func(path string) {
			require.NoError(t, os.WriteFile(path, []byte(`{"Account":null,"IdToken":[]}`), 0o600))
		},
		"a link": func(path string) {
			require.NoError(t, os.Rename(path, path+".real"))
			require.NoError(t, os.Symlink(path+".real", path))
		},
		"gone": func(path string) { require.NoError(t, os.Remove(path)) },
	}
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, "unix:path=/nowhere")
			path := u.azureCLI(t)
			spoil(path)
			// A file that was changed long ago is not waited for, and its time of access is
			// older than any that the system would set.
			old := time.Now().Add(-48 * time.Hour)
			if _, err := os.Stat(path); err == nil {
				require.NoError(t, os.Chtimes(path, old, old))
			}
			before := stateOf(t, filepath.Dir(path))
			for i, other := range []string{"az", path} {
				for _, args := range [][]string{
					{"list", "-other", other}, {"list", "-json"},
					{"inspect", "-other", other}, {"inspect", "-other", other, "-json"},
					{"doctor", "others", "-other", other}, {"doctor", "-json", "-other", other},
					{"import", fmt.Sprint("copy-", i), "-other", other, "-to", "plaintext"},
				} {
					cmd := exec.CommandContext(t.Context(), "tokenkeep", args...)
					cmd.Env = u.env
					_, _ = cmd.CombinedOutput()
					require.Less(t, cmd.ProcessState.ExitCode(), 2, "%v", args)
					require.Equal(t, before, stateOf(t, filepath.Dir(path)), "%v", args)
				}
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		u := newUser(t, "unix:path=/nowhere")
		path := u.azureCLI(t)
		before := stateOf(t, filepath.Dir(path))
		leaveLock(t, path, "1")
		require.NoError(t, os.Remove(path+".lockfile"))
		require.NotEqual(t, before, stateOf(t, filepath.Dir(path)), "a lock that is taken and given back is seen")
	})
}

// Each state of another program's cache has its finding.
func TestDoctorKnowsOtherPrograms(t *testing.T) {
	entry := func(key, section, home string) string {
		return fmt.Sprintf(`%q:{"home_account_id":%q,"environment":"login.microsoftonline.com","client_id":%q,"credential_type":%q,"secret":%q,"realm":"t","username":"alice@contoso.example"}`,
			key, home, azureCLIClientID, section, planted)
	}
	for want, spoil := range map[string]func(path string){
		"": func(string) {},
		"others.damaged": func(path string) {
			require.NoError(t, os.Truncate(path, 100))
			old := time.Now().Add(-time.Hour)
			require.NoError(t, os.Chtimes(path, old, old))
		},
		"others.empty": func(path string) {
			require.NoError(t, os.Truncate(path, 0))
		},
		"others.open":       func(path string) { require.NoError(t, os.Chmod(path, 0o644)) },
		"others.lock-left":  func(path string) { leaveLock(t, path, fmt.Sprintf("%d az", ended(t))) },
		"others.lock-stuck": func(path string) { leaveLock(t, path, fmt.Sprint(os.Getpid())) },
		"others.null-section": func(path string) {
			require.NoError(t, os.WriteFile(path, []byte(`{"Account":null}`), 0o600))
		},
		"others.shape": func(path string) {
			require.NoError(t, os.WriteFile(path, []byte(`{"Account":[]}`), 0o600))
		},
		"others.twice": func(path string) {
			require.NoError(t, os.WriteFile(path, []byte(`{"RefreshToken":{`+entry("a", "RefreshToken", "u.t")+`,`+entry("b", "RefreshToken", "u.t")+`}}`), 0o600))
		},
		"others.usernames": func(path string) {
			require.NoError(t, os.WriteFile(path, []byte(`{"Account":{`+entry("a", "Account", "u.t")+`,`+entry("b", "Account", "v.t")+`}}`), 0o600))
		},
		"others.unreadable": func(path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, syscall.Mkfifo(path, 0o600))
		},
	} {
		t.Run(want, func(t *testing.T) {
			u := newUser(t, "unix:path=/nowhere")
			spoil(u.azureCLI(t))
			ids := u.findingsOf(t, "tokenkeep", "doctor", "others", "-json")
			if want == "" {
				require.Empty(t, ids)
				return
			}
			require.Equal(t, []string{want}, ids)
		})
	}
}

// findingsOf returns the ids of what a run of the doctor finds.
func (u *user) findingsOf(t *testing.T, name string, args ...string) (ids []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = u.env
	out, err := cmd.Output()
	require.NotContains(t, string(out), "alice")
	var object struct {
		Result struct{ Checks []outcome }
	}
	require.NoError(t, json.Unmarshal(out, &object), "%v: %s", err, out)
	for _, f := range object.Result.Checks[0].Findings {
		ids = append(ids, f.ID)
	}
	return ids
}

// What only root can make: a file of somebody else, and one that is mounted by
// itself.
func TestDoctorKnowsOwnersAndMounts(t *testing.T) {
	env.Require(t, os.Geteuid() == 0 && exec.Command("unshare", "-m", "true").Run() == nil, "only root can give files away and mount: run the tests as root in a container that may")
	u := newUser(t, "unix:path=/nowhere")
	u.env = append(u.env, "PATH="+os.Getenv("PATH"))
	path := u.azureCLI(t)
	require.Empty(t, u.findingsOf(t, "tokenkeep", "doctor", "others", "-json"))
	require.Equal(t, []string{"others.mounted"}, u.findingsOf(t, "unshare", "-m", "sh", "-c", `mount --bind "$1" "$1" && exec tokenkeep doctor others -json`, "sh", path))
	const nobody = 65534
	require.NoError(t, os.Chown(path, nobody, nobody))
	require.Equal(t, []string{"others.foreign"}, u.findingsOf(t, "tokenkeep", "doctor", "others", "-json"))
	require.NoError(t, os.Chown(filepath.Dir(path), nobody, nobody))
	require.Equal(t, []string{"others.foreign"}, u.findingsOf(t, "tokenkeep", "doctor", "others", "-json"))

	// As after sudo az, for the user, who cannot even read it.
	require.NoError(t, os.Chown(path, 0, 0))
	root := filepath.Dir(u.home)
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	require.NoError(t, os.Chmod(u.home, 0o755))
	self, err := exec.LookPath("tokenkeep")
	require.NoError(t, err)
	text, err := os.ReadFile(self)
	require.NoError(t, err)
	program := filepath.Join(root, "tokenkeep")
	require.NoError(t, os.WriteFile(program, text, 0o755))
	require.Equal(t, []string{"others.foreign"}, u.findingsOf(t, "setpriv", "--reuid=65534", "--clear-groups", program, "doctor", "others", "-json"))
}
