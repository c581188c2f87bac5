package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/cmd/tokenkeep/internal/sample"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
)

// user is somebody with a home folder, whose programs use the real keyring.
type user struct {
	home string
	env  []string
}

func newUser(t *testing.T, bus string) *user {
	home := filepath.Join(t.TempDir(), "home")
	require.NoError(t, os.Mkdir(home, 0o700))
	self, err := exec.LookPath("tokenkeep")
	require.NoError(t, err)
	tools := t.TempDir() // what the doctor looks for, and never runs
	for _, name := range []string{"apt-get", "seahorse"} {
		require.NoError(t, os.WriteFile(filepath.Join(tools, name), []byte("#!/bin/false\n"), 0o700))
	}
	return &user{home, []string{"HOME=" + home, "USER=alice", "PATH=" + filepath.Dir(self) + ":" + tools, "XDG_CURRENT_DESKTOP=GNOME",
		"DBUS_SESSION_BUS_ADDRESS=" + bus, "TEST_KEYRING=real", "TEST_KERNEL=" + filepath.Join(home, ".kernel"), "TEST_ROOT=" + t.TempDir(), "PASSPHRASE=" + planted, "GORACE=atexit_sleep_ms=0"}}
}

func (u *user) dir() string { return filepath.Join(u.home, ".local", "share", "tokenkeep") }

func (u *user) run(t *testing.T, code int, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = u.env
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	require.NoError(t, err)
	require.Equal(t, code, cmd.ProcessState.ExitCode(), "%s", out)
	return string(out)
}

// outcome is one check in the doctor's JSON.
type outcome struct {
	ID       string
	Findings []struct{ ID, What, Command string }
}

var update = flag.Bool("update", false, "write docs/doctor.md anew")

var (
	milliseconds = regexp.MustCompile(`\(\d+ ms\)`)
	date         = regexp.MustCompile(`\b20\d\d-\d\d-\d\d\b`)
	clock        = regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`)
)

// TestDoctorTranscripts writes what the doctor says in some situations, with a
// real GNOME Keyring, and compares it with docs/doctor.md.
func TestDoctorTranscripts(t *testing.T) {
	var doc strings.Builder
	doc.WriteString(`# What tokenkeep doctor says

Eight situations on Linux, as the program printed them: the only things changed are
how long each check took, and the date of a lock file. Where a program is at work there
can be more to see.
GNOME Keyring is real here; the kernel's keyring is a stand-in, and so are the
signs by which the doctor knows a place.

This page is made, and checked in CI, by a test. To make it anew:

    go -C cmd/tokenkeep/e2e test -run TestDoctorTranscripts -update
`)
	show := func(u *user, title, text string, code int) {
		out := u.run(t, code, "tokenkeep", "doctor")
		require.NotContains(t, out, u.home)
		require.NotContains(t, out, "alice")
		out = milliseconds.ReplaceAllString(out, "(… ms)")
		out = clock.ReplaceAllString(date.ReplaceAllString(out, "2026-01-02"), "03:04:05")
		doc.WriteString("\n## " + title + "\n\n" + text + "\n\n```\n$ tokenkeep doctor\n" + out + "```\n")
	}

	bus := secretservice.StartBus(t)
	service := bus.StartKeyring(t, true)
	alice := newUser(t, bus.Address)
	alice.run(t, 0, "seed", "contoso-cli", "keyring")
	before := bus.Items(t)
	show(alice, "The keyring works", "One program has signed in. The exit code is 0.", 0)
	require.Equal(t, before, bus.Items(t), "it leaves no trace")

	service.Lock(t)
	show(alice, "The keyring is locked", "As in a session that did not begin with a password. The exit code is 1.", 1)

	empty := secretservice.StartBus(t)
	bob := newUser(t, empty.Address)
	bob.run(t, 0, "seed", "contoso-cli", "plaintext")
	show(bob, "There is no keyring", "A session bus, and no keyring program. The program's author has permitted plaintext. The exit code is 1.", 1)

	other := secretservice.StartBus(t)
	other.StartKeyring(t, true)
	carol := newUser(t, other.Address)
	carol.run(t, 0, "seed", "contoso-cli", "keyring")
	require.NoError(t, os.WriteFile(filepath.Join(carol.dir(), "contoso-cli.plaintext.json"), sample.Cache(time.Now()), 0o600))
	show(carol, "Plaintext is left behind", "From a time without a keyring, or put back by a backup. The exit code is 1.", 1)

	noBus := "unix:path=" + filepath.Join(t.TempDir(), "none")
	dora := newUser(t, noBus)
	dora.env = append(dora.env, "XDG_CURRENT_DESKTOP=", "container=docker", "TEST_KERNEL=blocked:"+filepath.Join(dora.home, ".kernel"))
	show(dora, "A container", "No session bus, and the runtime blocks the kernel's keyring, as Docker does by default. The exit code is 1.", 1)

	remote := secretservice.StartBus(t)
	login := remote.StartKeyring(t, true)
	erin := newUser(t, remote.Address)
	erin.run(t, 0, "seed", "contoso-cli", "keyring")
	login.Lock(t)
	erin.env = append(erin.env, "XDG_CURRENT_DESKTOP=", "SSH_CONNECTION=192.0.2.1 50000 192.0.2.2 22", "SSH_TTY=/dev/pts/1")
	show(erin, "Over SSH", "The sign-in was made at the screen, and the keyring is locked now. The exit code is 1.", 1)

	frank := newUser(t, noBus)
	frank.env = append(frank.env, "XDG_CURRENT_DESKTOP=")
	frank.run(t, 0, "seed", "contoso-cli", "kernel")
	show(frank, "A server without a desktop", "One program has signed in; its key is in the kernel's keyring. The exit code is 0.", 0)

	grace := newUser(t, noBus)
	grace.env = append(grace.env, "XDG_CURRENT_DESKTOP=")
	az := grace.azureCLI(t)
	require.NoError(t, os.Chmod(az, 0o644))
	leaveLock(t, az, "4194304 az") // no process of Linux has this number
	month := time.Now().Add(-30 * 24 * time.Hour)
	require.NoError(t, os.Chtimes(az+".lockfile", month, month))
	show(grace, "Azure CLI was killed", "The user has signed in with Azure CLI, whose cache another program shares. A process was killed while it held the cache's lock, and an old version has left the file open. The exit code is 1.", 1)

	path := filepath.Join("..", "..", "..", "docs", "doctor.md")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(doc.String()), 0o666))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), doc.String(), "make the page anew: go -C cmd/tokenkeep/e2e test -run TestDoctorTranscripts -update")
}

// situation runs the doctor's check of the keyring and returns the finding's id.
func (u *user) situation(t *testing.T, code int, more ...string) string {
	t.Helper()
	var object struct {
		Result struct{ Checks []outcome }
	}
	require.NoError(t, json.Unmarshal([]byte(u.run(t, code, "tokenkeep", append([]string{"doctor", "keyring", "-json"}, more...)...)), &object))
	require.Len(t, object.Result.Checks, 1)
	if len(object.Result.Checks[0].Findings) == 0 {
		return ""
	}
	return object.Result.Checks[0].Findings[0].ID
}

// Each state of the real keyring is recognized, and left as it is.
func TestDoctorRecognizes(t *testing.T) {
	t.Run("no bus", func(t *testing.T) {
		require.Equal(t, "keyring.no-bus", newUser(t, "unix:path="+filepath.Join(t.TempDir(), "none")).situation(t, 1))
		require.Equal(t, "keyring.no-bus", newUser(t, "tcp:host=localhost").situation(t, 1))
	})
	t.Run("no service", func(t *testing.T) {
		require.Equal(t, "keyring.no-service", newUser(t, secretservice.StartBus(t).Address).situation(t, 1))
	})
	t.Run("no collection", func(t *testing.T) {
		bus := secretservice.StartBus(t)
		bus.StartKeyring(t, false)
		require.Equal(t, "keyring.no-collection", newUser(t, bus.Address).situation(t, 1))
	})
	t.Run("locked, and a prompt that nobody answers", func(t *testing.T) {
		bus := secretservice.StartBus(t)
		service := bus.StartKeyring(t, true)
		service.Lock(t)
		asked := bus.DeafPrompter(t)
		require.Equal(t, "keyring.locked", newUser(t, bus.Address).situation(t, 1))
		require.Empty(t, asked, "it asks nobody")
	})
	t.Run("no answer", func(t *testing.T) {
		bus := secretservice.StartBus(t)
		service := bus.StartKeyring(t, true)
		service.Pause(t)
		require.Equal(t, "keyring.no-answer", newUser(t, bus.Address).situation(t, 1, "-timeout", "200ms"))
		require.Equal(t, "keyring.no-answer", newUser(t, secretservice.DeafBus(t)).situation(t, 1, "-timeout", "200ms"))
	})
	t.Run("works", func(t *testing.T) {
		bus := secretservice.StartBus(t)
		bus.StartKeyring(t, true)
		require.Empty(t, newUser(t, bus.Address).situation(t, 0))
		require.Empty(t, bus.Items(t))
	})
}

// After a run by sudo the files belong to root, and the user's doctor says so.
func TestDoctorFindsRootsFiles(t *testing.T) {
	env.Require(t, os.Geteuid() == 0, "only root can give files away")
	const nobody = 65534
	u := newUser(t, "unix:path=/nowhere")
	u.run(t, 0, "seed", "contoso-cli", "plaintext")
	// The user's own folders, and a copy of the program where the user reaches it.
	root := filepath.Dir(u.home)
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	for dir := u.dir(); dir != root; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chown(dir, nobody, nobody))
	}
	self, err := exec.LookPath("tokenkeep")
	require.NoError(t, err)
	program := filepath.Join(root, "tokenkeep")
	text, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, text, 0o755))

	cmd := exec.CommandContext(t.Context(), program, "doctor", "folder", "-json")
	cmd.Env, cmd.Dir = u.env, root
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.Output()
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), "%v %s", err, out)
	var object struct {
		Result struct{ Checks []outcome }
	}
	require.NoError(t, json.Unmarshal(out, &object))
	found := object.Result.Checks[0].Findings
	require.Len(t, found, 1)
	require.Equal(t, "folder.foreign-files", found[0].ID)
	require.Contains(t, found[0].What, "files belong to root")
	require.Contains(t, found[0].What, "contoso-cli.plaintext.json")
	require.Equal(t, `sudo chown -R "$(id -u):$(id -g)" ~/.local/share/tokenkeep`, found[0].Command)
}

// The doctor tells a person who runs it through sudo so.
func TestDoctorSeesSudo(t *testing.T) {
	env.Require(t, os.Geteuid() == 0, "only root is there by sudo")
	u := newUser(t, "unix:path=/nowhere")
	u.env = append(u.env, "SUDO_UID=1000", "SUDO_USER=alice")
	out := u.run(t, 1, "tokenkeep", "doctor", "session")
	require.Contains(t, out, "This runs through sudo, as root.")
	require.NotContains(t, out, "alice")
}
