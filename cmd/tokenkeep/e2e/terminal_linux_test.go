package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Whoever interrupts the question has a terminal that shows again what is typed.
func TestInterruptedQuestion(t *testing.T) {
	env := terminalEnv(t)
	seedIn(t, env, "server", "passphrase")
	s := onScreen(t, env, "inspect", "server")
	echo := func() bool {
		state, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
		require.NoError(t, err)
		return state.Lflag&unix.ECHO != 0
	}
	s.await(t, "Passphrase of server: ")
	require.False(t, echo())
	interruptible := func() bool {
		state, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
		require.NoError(t, err)
		return state.Lflag&unix.ISIG != 0
	}
	for !interruptible() { // a moment later
	}
	s.answer(t, "\x03")
	require.Equal(t, 1, s.end(t), "%s", s)
	require.True(t, echo(), "%q", s)
}
