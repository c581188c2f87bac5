// Package oauthdemo tests the demos of the examples oauth-device and
// oauth-loopback, which differ only in how the user signs in.
package oauthdemo

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// With this variable set, the test program is the example.
const exampleVariable = "TOKENKEEP_RUN_EXAMPLE"

// Main runs the tests, or the example itself where the test program was started
// as the example.
func Main(m *testing.M, example func()) {
	if os.Getenv(exampleVariable) != "" {
		example()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Test runs the demo of the example name, whose output has signedIn after a
// sign-in. The test's TestMain has to call Main.
func Test(t *testing.T, name, signedIn string) {
	t.Run("RunAfterRun", func(t *testing.T) { runAfterRun(t, name, signedIn) })
	t.Run("RunsAtTheSameTime", runsAtTheSameTime)
	t.Run("WrongProvider", wrongProvider)
}

// program runs the demo in a home folder, without a keyring.
func program(t *testing.T, home string, args ...string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, append([]string{"-store=plaintext"}, args...)...)
	cmd.Dir = home
	cmd.Env = []string{exampleVariable + "=1", "HOME=" + home, "LocalAppData=" + home, "SystemRoot=" + os.Getenv("SystemRoot"), "TMPDIR=" + home, "TMP=" + home,
		"DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(home, "no-bus"), "GORACE=atexit_sleep_ms=0"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func runAfterRun(t *testing.T, name, signedIn string) {
	home := t.TempDir()
	out, err := program(t, home)
	require.NoError(t, err, "%s", out)
	require.Contains(t, out, "This is a demo")
	require.Contains(t, out, "Signed in: "+signedIn)
	require.Contains(t, out, `200 OK: {"user":"alice"}`)

	again, err := program(t, home)
	require.NoError(t, err, "%s", again)
	require.Contains(t, again, "the token of an earlier run was still there")
	require.Contains(t, again, `200 OK: {"user":"alice"}`)

	renewed, err := program(t, home, "-refresh")
	require.NoError(t, err, "%s", renewed)
	require.Contains(t, renewed, "the access token was renewed")
	require.Contains(t, renewed, `200 OK: {"user":"alice"}`)

	file := tokens(t, home, name)
	secrets := regexp.MustCompile(`"(?:access|refresh)_token":"([^"]+)"`).FindAllStringSubmatch(file, -1)
	require.Len(t, secrets, 2)
	for _, s := range secrets {
		require.NotContains(t, out+again+renewed, s[1])
	}

	gone, err := program(t, home, "-sign-out")
	require.NoError(t, err, "%s", gone)
	require.NotContains(t, tokens(t, home, name), "refresh_token")
	out, err = program(t, home)
	require.NoError(t, err, "%s", out)
	require.Contains(t, out, "Signed in: "+signedIn)
}

// Runs at the same time, each of which wants another access token: the provider
// would sign the user out if two of them spent one refresh token.
func runsAtTheSameTime(t *testing.T) {
	home := t.TempDir()
	out, err := program(t, home)
	require.NoError(t, err, "%s", out)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			out, err := program(t, home, "-refresh")
			if err != nil || !strings.Contains(out, "renewed") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	out, err = program(t, home, "-refresh")
	require.NoError(t, err, "%s", out)
	require.Contains(t, out, "renewed")
}

func wrongProvider(t *testing.T) {
	out, err := program(t, t.TempDir(), "-provider=nobody")
	require.Error(t, err)
	require.Contains(t, out, "github, gitlab, google, microsoft")
}

// tokens returns the file that the tokens are in.
func tokens(t *testing.T, home, name string) string {
	t.Helper()
	var found string
	require.NoError(t, filepath.WalkDir(home, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "tokenkeep-"+name+"-demo.plaintext.json" {
			found = path
		}
		return err
	}))
	b, err := os.ReadFile(found)
	require.NoError(t, err)
	return string(b)
}
