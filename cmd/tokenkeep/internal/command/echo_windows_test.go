package command

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// At the hidden prompt the console edits the line: Backspace comes neither as a
// character nor as an escape sequence, also where the shell has turned these on.
func TestHiddenMode(t *testing.T) {
	const edits, hides = windows.ENABLE_LINE_INPUT | windows.ENABLE_PROCESSED_INPUT, windows.ENABLE_ECHO_INPUT | windows.ENABLE_VIRTUAL_TERMINAL_INPUT
	for _, before := range []uint32{0, windows.ENABLE_ECHO_INPUT | edits, windows.ENABLE_VIRTUAL_TERMINAL_INPUT, ^uint32(0)} {
		mode := hiddenMode(before)
		require.EqualValues(t, edits, mode&edits)
		require.Zero(t, mode&hides)
		require.Equal(t, before&^(edits|hides), mode&^(edits|hides), "the rest stays")
	}
}
