package command

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/cmd/tokenkeep/internal/sample"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

// looked is what can be seen of a folder.
func looked(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		fi, err := d.Info()
		require.NoError(t, err)
		all[path] = fi.Mode().String() + fi.ModTime().String()
		if fi.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			all[path] += string(text)
		}
		return nil
	}))
	return all
}

// Whatever it finds, the doctor writes no file and no item of a keyring.
func TestDoctorChangesNothing(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	dir, k := t.TempDir(), keyringtest.New()
	for _, c := range []tokenkeep.Config{{Name: "sound"}, {Name: "damaged"}, {Name: "keyless", Keyring: keyringtest.New()}, {Name: "beside"}, {Name: "bare", Store: storePlaintext, AllowPlaintext: true}} {
		c.Dir, c.Warn = dir, func(fallback.Warning) {}
		if c.Keyring == nil {
			c.Keyring = k
		}
		cache, err := tokenkeep.Open(t.Context(), c)
		require.NoError(t, err)
		require.NoError(t, cache.Update(t.Context(), func([]byte) ([]byte, error) { return sample.Cache(time.Now()), nil }))
	}
	path := filepath.Join(dir, "damaged.enc")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	text[len(text)-1] ^= 1
	for name, text := range map[string][]byte{"damaged.enc": text, "torn.enc": text[:20], "beside.plaintext.json": sample.Cache(time.Now()),
		".sound.enc.0.tmp": nil, "sound.enc.damaged-20200101T000000Z": text, "sound.plaintext.json.damaged-20200101T000000Z": nil} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	before, calls := looked(t, dir), len(k.Calls())
	for range 2 {
		var out, errs screenText
		code := Run(context.Background(), []string{"doctor", "-dir", dir}, &Machine{Stdout: &out, Stderr: &errs, Env: os.Getenv, Keyring: k, Cost: cheap, Root: t.TempDir()})
		require.Equal(t, ExitProblem, code, "%s%s", out, errs)
		require.Empty(t, errs)
		for _, found := range []string{"damaged: the stored data is damaged", "torn: the stored data is damaged", "keyless: the keyring is open and does not have the key", "beside: there are unencrypted tokens", "bare keeps its tokens unencrypted"} {
			require.Contains(t, string(out), found)
		}
		require.NotContains(t, string(out), planted)
	}
	require.Equal(t, before, looked(t, dir))
	for _, call := range k.Calls()[calls:] {
		require.Equal(t, "get", call.Op)
	}
}

type screenText []byte

func (s *screenText) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// What closes a file takes away what it has inherited, and what it was given itself.
func TestCloseFile(t *testing.T) {
	c := &call{Machine: &Machine{Env: func(string) string { return "" }}}
	require.Regexp(t, `^cmd /c icacls ["']?key["']? `, c.closeFile("key", "F"))
	require.Contains(t, c.closeFile("key", "F"), ` /inheritance:r /remove:g "*S-1-1-0" "*S-1-5-2" "*S-1-5-4" "*S-1-5-7" "*S-1-5-11" "*S-1-5-32-545" "*S-1-5-32-546"`)
	require.Regexp(t, ` /grant:r "(%USERNAME%|\*S-1-5-[0-9-]+):F" "\*S-1-5-18:F" "\*S-1-5-32-544:F"$`, c.closeFile("key", "F"))
}

// Where the folder should be is a file: doctor says so, and prints no command that closes it.
func TestDoctorWithoutAFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	var out screenText
	code := Run(t.Context(), []string{"doctor", "folder", "-dir", path}, &Machine{Stdout: &out, Stderr: &out, Env: os.Getenv, Keyring: keyringtest.New(), Cost: cheap, Root: t.TempDir()})
	require.Equal(t, ExitProblem, code, "%s", out)
	require.Contains(t, string(out), "is not a folder")
	require.Contains(t, string(out), "1 problem.")
	require.NotContains(t, string(out), "chmod")
}

// What is below the home folder is named from there, because its path may have a space.
func TestIsPlainPath(t *testing.T) {
	for path, plain := range map[string]bool{
		`AppData\Local\tokenkeep\app.enc.damaged-20260101T000000Z`: true,
		`My Files\app.enc`: false, `a&b`: false, `a%b`: false, `$a`: false, "a`b": false, `a'b`: false, `a(b)`: false, `ä`: false,
	} {
		require.Equal(t, plain, isPlainPath(path), path)
	}
}
