package securefile_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// A folder can hand down a list that lets everybody read, beside mode 0600. What is
// made there does not keep it.
func TestInheritedAccessLists(t *testing.T) {
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	run("/bin/chmod", "+a", "everyone allow read,list,search,file_inherit,directory_inherit", dir)
	const entry = "everyone inherited allow"

	made, path, lock := filepath.Join(dir, "made"), filepath.Join(dir, "cache"), filepath.Join(dir, "lock")
	require.NoError(t, securefile.MkdirAll(made))
	_, err := securefile.Replace(t.Context(), path, []byte("data"))
	require.NoError(t, err)
	require.NoError(t, securefile.MakeEmpty(lock))
	for path, mode := range map[string]os.FileMode{made: 0o700 | os.ModeDir, path: 0o600, lock: 0o600} {
		require.NotContains(t, run("/bin/ls", "-lde", path), entry)
		fi, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, fi.Mode())
	}
	// Control: what is made in the usual way does.
	other := filepath.Join(dir, "other")
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	require.Contains(t, run("/bin/ls", "-lde", other), entry)
}
