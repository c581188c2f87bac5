package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

// Only the doctor redacts names; all other commands show paths as they are.
func TestOthersShowTruePaths(t *testing.T) {
	home := filepath.Join(t.TempDir(), "alice")
	dir := filepath.Join(home, "alice", "tokens")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	for _, v := range []string{"HOME", "USERPROFILE"} {
		t.Setenv(v, home)
	}
	t.Setenv("USER", "alice")
	k := keyringtest.New()
	fill(t, inFolder(t, dir, k), `{"Account":{}}`)
	for _, args := range [][]string{{"list"}, {"inspect", "app"}, {"rotate", "app"}} {
		out, _ := runIn(t, ExitFine, k, append(args, "-dir", dir)...)
		if args[0] != "rotate" {
			require.Contains(t, out, dir)
		}
		out, _ = runIn(t, ExitFine, k, append(args, "-dir", dir, "-json")...)
		require.Contains(t, out, inJSON(t, filepath.Join(dir, "app.enc")))
	}
	_, errs := runIn(t, ExitProblem, k, "inspect", "nobody", "-dir", dir)
	require.Contains(t, errs, dir)

	for form, shown := range map[string]string{"-json=false": dir, "-json": inJSON(t, dir)} {
		out, errs := runIn(t, ExitFine, k, "doctor", "folder", "caches", form, "-dir", dir)
		require.NotContains(t, out+errs, home)
		out, _ = runIn(t, ExitFine, k, "doctor", "folder", "caches", form, "-dir", dir, "-show-names")
		require.Contains(t, out, shown)
	}
	runIn(t, ExitMisuse, k, "list", "-show-names")
}

// inJSON is s as it stands within a string of JSON.
func inJSON(t *testing.T, s string) string {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	return string(text[1 : len(text)-1])
}
