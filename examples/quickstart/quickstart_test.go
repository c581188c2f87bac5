package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

const name = "tokenkeep-quickstart-demo"

var (
	binary  string
	sources sync.Once // of the binary
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "quickstart")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "quickstart.exe")
		if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// machine is a user's home folder, and the environment of the programs there.
type machine struct {
	home string
	env  []string
}

// bare is a machine without a keyring, if only because its bus is not there. macOS
// and Windows cannot be without; tests there say where to keep the tokens, so that
// they leave the real keyring alone. What was kept is removed at the end.
func bare(t *testing.T) *machine {
	t.Helper()
	sources.Do(func() { env.DependsOnSources(t, ".") })
	home := t.TempDir()
	m := &machine{home, []string{"HOME=" + home, "LocalAppData=" + home, "SystemRoot=" + os.Getenv("SystemRoot"), "TMPDIR=" + home,
		"DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(home, "no-bus")}}
	t.Cleanup(func() {
		for _, name := range []string{name, "tokenkeep-quickstart"} { // with the keys in the kernel's keyring, but in no other
			config := tokenkeep.Config{Name: name, Dir: m.dir(), Keyring: keyringtest.New(), Kernel: keyring.Kernel(), Warn: func(fallback.Warning) {}}
			require.NoError(t, tokenkeep.Remove(context.Background(), config))
		}
	})
	return m
}

// run runs the quickstart and returns what it prints.
func (m *machine) run(t *testing.T, wantCode int, args ...string) string {
	t.Helper()
	if keyringOfTheSystem() && !strings.Contains(strings.Join(args, " "), "-store") {
		args = append(args, "-store=plaintext")
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env, cmd.Dir = m.env, m.home
	out, err := cmd.CombinedOutput()
	if wantCode == 0 {
		require.NoError(t, err, "%s", out)
	}
	require.Equal(t, wantCode, cmd.ProcessState.ExitCode(), "%s", out)
	return string(out)
}

func keyringOfTheSystem() bool { return runtime.GOOS == "darwin" || runtime.GOOS == "windows" }

// dir is where the tokens lie.
func (m *machine) dir() string {
	switch runtime.GOOS {
	case "windows":
		return filepath.Join(m.home, "tokenkeep")
	case "darwin":
		return filepath.Join(m.home, "Library", "Application Support", "tokenkeep")
	}
	return filepath.Join(m.home, ".local", "share", "tokenkeep")
}

func (m *machine) plaintext() string { return filepath.Join(m.dir(), name+".plaintext.json") }

// secrets returns the secrets in the plaintext cache by the section they are in.
func (m *machine) secrets(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(m.plaintext())
	require.NoError(t, err)
	var sections map[string]map[string]map[string]any
	require.NoError(t, json.Unmarshal(b, &sections))
	secrets := map[string]string{}
	for section, entries := range sections {
		for _, e := range entries {
			if s, ok := e["secret"].(string); ok {
				secrets[section] = s
			}
		}
	}
	require.Len(t, secrets, 3, "an access token, a refresh token and an id token")
	return secrets
}

func TestTwice(t *testing.T) {
	m := bare(t)
	first := m.run(t, 0, "-store=plaintext")
	require.Contains(t, first, "This is a demo")
	require.Contains(t, first, "enter the code")
	require.Contains(t, first, "Signed in as alice@contoso.example: by device code")
	require.Contains(t, first, m.plaintext())
	require.Contains(t, first, "NOT encrypted")
	require.Contains(t, first, "WARNING")
	secrets := m.secrets(t)

	second := m.run(t, 0, "-store=plaintext")
	require.Contains(t, second, "Signed in as alice@contoso.example: the tokens of an earlier run were still there")
	require.NotContains(t, second, "enter the code")
	require.Contains(t, second, m.plaintext())
	require.Equal(t, secrets, m.secrets(t))

	for _, s := range secrets {
		require.NotContains(t, first+second, s)
	}
	m.checkFiles(t, secrets)
}

// checkFiles checks that the tokens are in the cache and nowhere else, and that
// nobody else can read any file.
func (m *machine) checkFiles(t *testing.T, secrets map[string]string) {
	t.Helper()
	found := false
	require.NoError(t, filepath.WalkDir(m.home, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				require.Equal(t, m.plaintext(), path)
				found = true
			}
		}
		fi, err := d.Info()
		require.NoError(t, err)
		if runtime.GOOS != "windows" {
			require.Equal(t, os.FileMode(0o600), fi.Mode().Perm(), path)
		}
		return nil
	}))
	require.True(t, found)
}

// TestRefresh takes the access token away between the runs. The second run has
// an authority that was started anew, and that must know the refresh token.
func TestRefresh(t *testing.T) {
	m := bare(t)
	m.run(t, 0, "-store=plaintext")
	secrets := m.secrets(t)
	c, err := tokenkeep.Open(t.Context(), tokenkeep.Config{Name: name, Dir: m.dir(), AllowPlaintext: true, Store: "plaintext", Warn: func(fallback.Warning) {}})
	require.NoError(t, err)
	require.NoError(t, c.Update(t.Context(), func(b []byte) ([]byte, error) {
		var sections map[string]any
		require.NoError(t, json.Unmarshal(b, &sections))
		delete(sections, "AccessToken")
		return json.Marshal(sections)
	}))
	out := m.run(t, 0, "-store=plaintext")
	require.Contains(t, out, "renewed with the refresh token of an earlier run")
	require.NotContains(t, out, "enter the code")
	renewed := m.secrets(t)
	for section := range secrets {
		require.NotContains(t, out, secrets[section])
		require.NotContains(t, out, renewed[section])
	}
	require.NotEqual(t, secrets["RefreshToken"], renewed["RefreshToken"])
}

func TestSignOut(t *testing.T) {
	m := bare(t)
	m.run(t, 0, "-store=plaintext")
	secrets := m.secrets(t)
	require.Contains(t, m.run(t, 0, "-sign-out", "-store=plaintext"), "Signed out alice@contoso.example")
	b, err := os.ReadFile(m.plaintext())
	require.NoError(t, err)
	for _, s := range secrets {
		require.NotContains(t, string(b), s)
	}
	require.Contains(t, m.run(t, 0, "-sign-out", "-store=plaintext"), "Nobody is signed in")
	require.Contains(t, m.run(t, 0, "-store=plaintext"), "enter the code")
}

func TestPassphrase(t *testing.T) {
	m := bare(t)
	const passphrase = "a planted passphrase"
	m.env = append(m.env, "TOKENKEEP_PASSPHRASE="+passphrase)
	first := m.run(t, 0, "-store=passphrase")
	require.Contains(t, first, "by device code")
	require.Contains(t, first, filepath.Join(m.dir(), name+".enc")+"\nencrypted; the key comes from: passphrase")
	require.NotContains(t, first, "WARNING")
	second := m.run(t, 0, "-store=passphrase")
	require.Contains(t, second, "still there")
	require.NoFileExists(t, m.plaintext())

	m.env = append(m.env, "TOKENKEEP_PASSPHRASE=mistyped")
	wrong := m.run(t, 1, "-store=passphrase")
	require.Contains(t, wrong, "wrong key or passphrase")
	require.Contains(t, wrong, "What you can do")
	m.env = append(m.env, "TOKENKEEP_PASSPHRASE=")
	none := m.run(t, 1, "-store=passphrase")
	require.Contains(t, none, "TOKENKEEP_PASSPHRASE is not set")
	require.NoFileExists(t, m.plaintext(), "nothing less safe is begun beside it")
	for _, out := range []string{first, second, wrong, none} {
		require.NotContains(t, out, passphrase)
		require.NotContains(t, out, "mistyped")
	}
	m.env = append(m.env, "TOKENKEEP_PASSPHRASE="+passphrase)
	require.Contains(t, m.run(t, 0, "-store=passphrase"), "still there")
}

// TestNowhereToKeepTokens is the run against the real authority on a machine where
// what the user asks for does not work: it must end before it asks anybody to sign
// in.
func TestNowhereToKeepTokens(t *testing.T) {
	m := bare(t)
	out := m.run(t, 1, "-client-id=11111111-0000-4000-8000-000000000000", "-tenant=contoso.example", "-store=passphrase")
	require.Contains(t, out, "Nobody was signed in")
	for _, part := range []string{"passphrase: TOKENKEEP_PASSPHRASE is not set", "-allow-plaintext", "TOKENKEEP_PASSPHRASE", "Leave out -store passphrase"} {
		require.Contains(t, out, part)
	}
	require.NotContains(t, out, "demo")
	require.NotContains(t, out, "Config.")
	if !keyringOfTheSystem() { // which a test must leave alone
		out = m.run(t, 1, "-store=keyring")
		require.Contains(t, out, "Leave out -store keyring")
		require.Contains(t, out, "keyring: ")
	}
	require.Contains(t, m.run(t, 1, "-store=shoebox"), "What you can do")
}

func TestMemory(t *testing.T) {
	m := bare(t)
	require.Contains(t, m.run(t, 0, "-store=memory"), "in memory only")
	require.NoDirExists(t, m.dir())
}

// TestByHand does with the page what the user is told to do.
func TestByHand(t *testing.T) {
	m := bare(t)
	cmd := exec.CommandContext(t.Context(), binary, "-by-hand", "-store=memory")
	cmd.Env, cmd.Dir = m.env, m.home
	var out screen
	out.shown = make(chan []string, 1)
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	var told []string
	select {
	case told = <-out.shown:
	case err := <-exited:
		t.Fatalf("it ended without asking: %v", err)
	}
	res, err := http.PostForm(told[1], url.Values{"user_code": {told[2]}, "username": {"bob@contoso.example"}, "answer": {"yes"}})
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.NoError(t, <-exited)
	require.Contains(t, out.b.String(), "Signed in as bob@contoso.example")
	require.NotContains(t, out.b.String(), "does that for you")
}

var told = regexp.MustCompile(`open the page (\S+) and enter the code (\S+) to`)

// screen watches for the instruction to the user.
type screen struct {
	mu    sync.Mutex
	b     bytes.Buffer
	shown chan []string
	done  bool
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Write(p)
	if m := told.FindStringSubmatch(s.b.String()); m != nil && !s.done {
		s.done = true
		s.shown <- m
	}
	return len(p), nil
}

// TestTogether runs it several times at once, from nothing.
func TestTogether(t *testing.T) {
	m := bare(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), binary, "-store=plaintext")
			cmd.Env, cmd.Dir = m.env, m.home
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	require.Contains(t, m.run(t, 0, "-store=plaintext"), "still there")
	require.Contains(t, m.run(t, 0, "-store=plaintext", "-scope=Mail.Read"), "renewed with the refresh token", "the refresh token that was kept is a live one")
}
