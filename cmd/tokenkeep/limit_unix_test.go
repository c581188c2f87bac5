//go:build linux || darwin

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
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
	fill(t, inFolder(t, dir, keyringtest.NewDir(items)), data)
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

	again := inFolder(t, dir, keyringtest.NewDir(items))
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
	onlyItsFiles(t, dir)
}
