package e2e

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func (s *screen) echo(t *testing.T) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	require.NoError(t, err)
	return state.Lflag&unix.ECHO != 0
}

// When a signal ends a question, the terminal shows again what is typed.
func TestInterruptedQuestion(t *testing.T) {
	env := terminalEnv(t)
	seedIn(t, env, "server", "passphrase")
	for name, interrupt := range map[string]func(*screen){
		"Ctrl-C":    func(s *screen) { s.answer(t, planted+"\x03") },
		"Ctrl-\\":   func(s *screen) { s.answer(t, planted+"\x1c") },
		"interrupt": func(s *screen) { s.signal(t, syscall.SIGINT) },
		"terminate": func(s *screen) { s.signal(t, syscall.SIGTERM) },
		"hang up":   func(s *screen) { s.signal(t, syscall.SIGHUP) },
		"quit":      func(s *screen) { s.signal(t, syscall.SIGQUIT) },
	} {
		t.Run(name, func(t *testing.T) {
			s := onScreen(t, env, "inspect", "server")
			s.await(t, "Passphrase of server: ")
			require.False(t, s.echo(t))
			interrupt(s)
			require.Equal(t, 1, s.end(t), "%s", s)
			require.True(t, s.echo(t), "%q", s)
			require.Contains(t, s.String(), "tokenkeep: interrupted")
			require.NotContains(t, s.String(), planted)
		})
	}
	t.Run("control: killed", func(t *testing.T) {
		s := onScreen(t, env, "inspect", "server")
		s.await(t, "Passphrase of server: ")
		s.signal(t, syscall.SIGKILL)
		s.end(t)
		require.False(t, s.echo(t), "the test would see a terminal without its echo")
	})
}

func (s *screen) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	require.NoError(t, s.cmd.Process.Signal(sig))
}

// What is typed can be edited, and what is deleted is no part of the passphrase.
func TestPassphraseIsEdited(t *testing.T) {
	env := terminalEnv(t)
	seedIn(t, env, "server", "passphrase")
	s := onScreen(t, env, "inspect", "server")
	s.await(t, "Passphrase of server: ")
	s.answer(t, "wrong\x15"+planted+"-oldx\x7f\n") // Ctrl-U, Backspace
	require.Equal(t, 0, s.end(t), "%s", s)
	require.Contains(t, s.String(), "alice@contoso.example")

	s = onScreen(t, env, "inspect", "server")
	s.await(t, "Passphrase of server: ")
	s.answer(t, "\x04") // Ctrl-D
	require.Equal(t, 1, s.end(t), "%s", s)
	require.Contains(t, s.String(), "no passphrase was given")
	require.True(t, s.echo(t))
}
