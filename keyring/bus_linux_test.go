package keyring

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() { programs["listen"] = listenProgram }

// listenProgram listens on a socket and prints the first line that each connection
// was sent, or "" if the other side closed it before.
func listenProgram(args []string) error {
	l, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	if !strings.HasPrefix(args[0], "@") {
		if err := os.Chmod(args[0], 0o777); err != nil {
			return err
		}
	}
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		first, _ := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		fmt.Printf("%q\n", first)
	}
}

// nextUser is a user who runs nothing else here.
const nextUser = 48211

// startListening runs listenProgram as another user. sent returns what the next
// connection was sent.
func startListening(t *testing.T, address string) (sent func() string) {
	t.Helper()
	env.Require(t, os.Getuid() == 0, "needs to be root, to start a program as another user")
	// The test program is in a folder that only its user can read.
	exe, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(exe)
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "program")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	exe = filepath.Join(dir, "test")
	require.NoError(t, os.WriteFile(exe, program, 0o755))

	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, exe, address)
	cmd.Env = append(os.Environ(), "TOKENKEEP_TEST_PROGRAM=listen", "GORACE=atexit_sleep_ms=0")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nextUser, Gid: nextUser}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
	lines := bufio.NewReader(out)
	line := func() string {
		text, err := lines.ReadString('\n')
		require.NoError(t, err)
		return strings.TrimSuffix(text, "\n")
	}
	require.Equal(t, "listening", line())
	return line
}

// A bus of another user is sent nothing, whatever its address, and its word is
// not believed.
func TestForeignBus(t *testing.T) {
	for _, kind := range []string{"abstract", "path", "runtime"} {
		t.Run(kind, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "bus")
			require.NoError(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			require.NoError(t, os.Chmod(dir, 0o777))
			socket := filepath.Join(dir, "bus")
			address := "unix:path=" + socket
			switch kind {
			case "abstract": // the name that a bus had whose session has ended
				name := "tokenkeep-test-" + rand.Text()
				socket, address = "@"+name, "unix:abstract="+name
			case "runtime":
				address = "unix:runtime=yes"
				t.Setenv("XDG_RUNTIME_DIR", dir)
			}
			sent := startListening(t, socket)
			useBus(t, address)
			k := System()
			_, getErr := k.Get(t.Context(), "app", "alice")
			_, _, keyErr := NewKeys(k, "app").NewKey(t.Context(), "id")
			_, gone := NewKeys(k, "app").Key(t.Context(), "id")
			for _, err := range []error{getErr, keyErr, gone} {
				require.ErrorIs(t, err, persistence.ErrUnavailable)
				require.NotErrorIs(t, err, persistence.ErrKeyMissing)
				require.Equal(t, ForeignBus, SituationOf(err))
				require.ErrorContains(t, err, fmt.Sprintf("uid %d", nextUser))
				require.NotEmpty(t, persistence.Remedy(err))
				require.Equal(t, `""`, sent(), "nothing is sent before the check")
			}

			// The control.
			before := checkPeer
			checkPeer = func(*net.UnixConn) error { return nil }
			defer func() { checkPeer = before }()
			_, err = k.Get(t.Context(), "app", "alice")
			require.Error(t, err)
			require.NotEqual(t, ForeignBus, SituationOf(err))
			require.Contains(t, sent(), "AUTH", "without the check, the other user is spoken to")
		})
	}
}

func init() { programs["get"] = getProgram }

// getProgram asks the session bus for an item, and prints why that failed.
func getProgram([]string) error {
	_, err := System().Get(context.Background(), "app", "alice")
	fmt.Printf("%s: %s\n", string(SituationOf(err)), persistence.Remedy(err))
	return nil
}

// A bus that a sandbox does not let the program connect to is there.
func TestBusThatMayNotBeConnectedTo(t *testing.T) {
	env.Require(t, os.Geteuid() == 0, "needs to be root, to act as another user")
	bus := secretservice.StartBus(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	self, err := os.Open(exe) // whose folder the other user cannot search
	require.NoError(t, err)
	defer self.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{self}
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	cmd.Env = append(bus.Env(), "TOKENKEEP_TEST_PROGRAM=get", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nextUser, Gid: nextUser}}
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Contains(t, string(out), string(BusRefused)+": Allow the program")
}

// The second address is used if another user listens at the first one.
func TestForeignBusIsPassedOver(t *testing.T) {
	name := "tokenkeep-test-" + rand.Text()
	sent := startListening(t, "@"+name)
	own := secretservice.StartBus(t)
	useBus(t, "unix:abstract="+name+";"+own.Address)
	_, err := System().Get(t.Context(), "app", "alice")
	require.Equal(t, NoService, SituationOf(err), "%v", err)
	require.Equal(t, `""`, sent())

	// That a foreign bus was met is what counts, not that nobody listens at the
	// next address.
	useBus(t, "unix:abstract="+name+";unix:path="+filepath.Join(t.TempDir(), "nothing"))
	_, err = System().Get(t.Context(), "app", "alice")
	require.Equal(t, ForeignBus, SituationOf(err), "%v", err)
}

// What the bus and the service can answer, each in its situation. Of their own
// words only the error's name is passed on, quoted.
func TestBusErrors(t *testing.T) {
	for name, want := range map[string]Situation{
		"org.freedesktop.DBus.Error.ServiceUnknown":     NoService,
		"org.freedesktop.DBus.Error.Spawn.ExecFailed":   NoService,
		"org.freedesktop.DBus.Error.TimedOut":           NoService,
		"org.freedesktop.DBus.Error.AccessDenied":       BusRefused,
		"org.freedesktop.Secret.Error.IsLocked":         Locked,
		"org.freedesktop.DBus.Error.NoReply":            Failed,
		"org.example.\x1b[2JCareless":                   Failed,
		"org.freedesktop.DBus.Error.Spawn.\u202eFailed": NoService,
	} {
		c := &client{ctx: t.Context(), caller: t.Context()}
		err := c.classify(dbus.Error{Name: name, Body: []any{"planted-secret"}})
		require.Equal(t, []string{fmt.Sprintf("D-Bus: %q", name)}, rawcode.Of(err))
		require.Equal(t, want, SituationOf(err), name)
		require.NotEmpty(t, persistence.Remedy(err))
		require.NotContains(t, err.Error(), "planted-secret")
		require.NotContains(t, err.Error(), "\x1b")
		require.NotContains(t, err.Error(), "\u202e")
	}
}
