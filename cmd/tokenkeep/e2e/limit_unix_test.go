//go:build linux || darwin

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const smallFile = 4096

func init() {
	limitFiles = func() {
		// As on a full disk, a write fails that would make a file larger.
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: smallFile, Max: smallFile}); err != nil {
			panic(err)
		}
	}
}

// Where the plaintext cannot be saved everything stays where it was, and
// programs have it.
func TestMoveToPlaintextOnAFullDisk(t *testing.T) {
	data := `{"S":{"a":{"secret":"` + strings.Repeat(planted, smallFile/len(planted)) + `"}}}`
	dir, items := t.TempDir(), t.TempDir()
	inFolder := func() *persistence.Cache {
		c, err := tokenkeep.Open(t.Context(), tokenkeep.Config{Name: "app", Dir: dir, Keyring: keyringtest.NewDir(items), Warn: func(fallback.Warning) {}})
		require.NoError(t, err)
		return c
	}
	require.NoError(t, inFolder().Update(t.Context(), func([]byte) ([]byte, error) { return []byte(data), nil }))
	path, err := exec.LookPath("tokenkeep")
	require.NoError(t, err)
	move := func(env ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), path, "move", "app", "-to", "plaintext", "-yes", "-dir", dir)
		cmd.Env = append(env, "HOME="+t.TempDir(), "TEST_KEYRING="+items)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := move("TEST_FILE_LIMIT=1")
	require.Error(t, err)
	require.Contains(t, out, "file too large")
	require.NotContains(t, out, "damaged")
	require.NotContains(t, out, planted)
	require.FileExists(t, filepath.Join(dir, "app.enc"))
	require.NoFileExists(t, filepath.Join(dir, "app.plaintext.json"))

	again := inFolder()
	got, err := again.Load(t.Context())
	require.NoError(t, err)
	require.JSONEq(t, data, string(got))
	require.Equal(t, "encrypted", again.Describe().Backend)

	// With room on the disk it is moved, and nothing else is left.
	out, err = move()
	require.NoError(t, err, "%s", out)
	plaintext, err := os.ReadFile(filepath.Join(dir, "app.plaintext.json"))
	require.NoError(t, err)
	require.JSONEq(t, data, string(plaintext))
	require.Empty(t, keyringtest.NewDir(items).Items())
	require.NoFileExists(t, filepath.Join(dir, "app.enc"))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		kind := layout.Parse(e.Name()).Kind
		require.Contains(t, []layout.Kind{layout.PlaintextFile, layout.Lock}, kind, e.Name())
	}
}
