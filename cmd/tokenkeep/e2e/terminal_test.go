//go:build linux || darwin

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// screen is the other side of a terminal.
type screen struct {
	tty  *os.File
	cmd  *exec.Cmd
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
	done chan struct{}
}

// onScreen starts a command whose streams are a terminal.
func onScreen(t *testing.T, env []string, args ...string) *screen {
	t.Helper()
	path, err := exec.LookPath("tokenkeep")
	require.NoError(t, err)
	s := &screen{cmd: exec.CommandContext(t.Context(), path, args...), more: make(chan struct{}, 1), done: make(chan struct{})}
	s.cmd.Env = append([]string{"TEST_TERMINAL=1", "TERM=xterm"}, env...)
	s.tty, err = pty.StartWithSize(s.cmd, &pty.Winsize{Rows: 50, Cols: 200})
	require.NoError(t, err)
	t.Cleanup(func() { s.tty.Close() })
	go func() {
		defer close(s.done)
		buf := make([]byte, 4096)
		for {
			n, err := s.tty.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
			if err != nil { // on Linux EIO, when the program has ended
				return
			}
		}
	}()
	return s
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until the text is on the screen.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	giveUp := time.After(time.Minute)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.more:
		case <-s.done:
			require.Contains(t, s.String(), text)
			return
		case <-giveUp:
			t.Fatalf("not on the screen: %q\n%s", text, s)
		}
	}
}

func (s *screen) answer(t *testing.T, text string) {
	t.Helper()
	_, err := s.tty.WriteString(text)
	require.NoError(t, err)
}

// end waits for the program's end and returns its exit code.
func (s *screen) end(t *testing.T) int {
	t.Helper()
	<-s.done
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

func terminalEnv(t *testing.T) []string {
	home := t.TempDir()
	return []string{"HOME=" + home, "TEST_ROOT=" + home, "TEST_KEYRING=" + home + "/keyring", "PASSPHRASE=" + planted + "-old", "NEW=" + planted + "-new", "GORACE=atexit_sleep_ms=0"}
}

func seedIn(t *testing.T, env []string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("seed")
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestColours(t *testing.T) {
	env := terminalEnv(t)
	s := onScreen(t, env, "doctor", "keyring")
	require.Equal(t, 0, s.end(t), "%s", s)
	require.Contains(t, s.String(), "\x1b[32m✓\x1b[0m")

	for _, no := range []string{"NO_COLOR=1", "TERM=dumb"} {
		s = onScreen(t, append([]string{no}, env...), "doctor", "keyring")
		require.Equal(t, 0, s.end(t))
		require.Contains(t, s.String(), "[✓] Keyring")
		require.NotContains(t, s.String(), "\x1b")
	}
	s = onScreen(t, env, "doctor", "keyring", "-json")
	require.Equal(t, 0, s.end(t))
	require.NotContains(t, s.String(), "\x1b")
}

// The passphrases are asked for, and not shown.
func TestPassphraseIsNotShown(t *testing.T) {
	env := terminalEnv(t)
	seedIn(t, env, "server", "passphrase")
	s := onScreen(t, env, "passphrase", "server")
	s.await(t, "Passphrase of server: ")
	s.answer(t, planted+"-old\n")
	s.await(t, "New passphrase of server: ")
	s.answer(t, planted+"-new\n")
	s.await(t, "The same again: ")
	s.answer(t, planted+"-new\n")
	require.Equal(t, 0, s.end(t), "%s", s)
	require.Contains(t, s.String(), "the passphrase is changed")
	require.NotContains(t, s.String(), planted)

	s = onScreen(t, env, "inspect", "server", "-passphrase-env", "NEW")
	require.Equal(t, 0, s.end(t), "%s", s)
	require.Contains(t, s.String(), "alice@contoso.example")
	require.NotContains(t, s.String(), planted)
}

func TestPassphraseSlips(t *testing.T) {
	env := terminalEnv(t)
	seedIn(t, env, "server", "passphrase")
	s := onScreen(t, env, "passphrase", "server")
	s.await(t, "Passphrase of server: ")
	s.answer(t, planted+"-old\n")
	s.await(t, "New passphrase of server: ")
	s.answer(t, planted+"-new\n")
	s.await(t, "The same again: ")
	s.answer(t, planted+"-nwe\n")
	require.Equal(t, 1, s.end(t), "%s", s)
	require.Contains(t, s.String(), "the two passphrases differ. Nothing was changed; try again.")
	require.NotContains(t, s.String(), planted)
	s = onScreen(t, env, "inspect", "server", "-passphrase-env", "PASSPHRASE")
	require.Equal(t, 0, s.end(t), "%s", s)
}

func TestClearAsks(t *testing.T) {
	env := terminalEnv(t)
	seedIn(t, env, "contoso-cli", "keyring")
	s := onScreen(t, env, "clear", "contoso-cli")
	s.await(t, "Go on? [y/N] ")
	require.Contains(t, s.String(), "contoso-cli.enc")
	s.answer(t, "\n")
	require.Equal(t, 1, s.end(t), "%s", s)
	require.Contains(t, s.String(), "nothing was changed")

	s = onScreen(t, env, "clear", "contoso-cli")
	s.await(t, "Go on? [y/N] ")
	s.answer(t, "y\n")
	require.Equal(t, 0, s.end(t), "%s", s)
	s = onScreen(t, env, "inspect", "contoso-cli")
	require.Equal(t, 1, s.end(t))
	require.Contains(t, s.String(), "nothing is stored")
}
