//go:build unix

package securefile

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Where chmod has no effect, nobody is told to use it. The control is a folder of a
// file system that has modes, as the one of the probe's file does.
func TestNoChmodWhereItHasNoEffect(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	remedy := func() string {
		var e *Error
		require.True(t, errors.As(CheckDir(dir), &e))
		return e.Remedy()
	}
	require.Contains(t, remedy(), "chmod 700")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "the probe leaves nothing")

	real := keepsModes
	keepsModes = func(string) bool { return false }
	defer func() { keepsModes = real }()
	require.Equal(t, modelessAdvice, remedy())
}
