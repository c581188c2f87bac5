package securefile

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A full disk and one that cannot be written are known by the codes of this system,
// as they come out of a Replace.
func TestFullAndReadOnlyDisks(t *testing.T) {
	failed := func(code error) error {
		return &ReplaceError{Step: "write", Path: "cache", Stored: Old, Err: &fs.PathError{Op: "write", Path: "cache.tmp", Err: code}}
	}
	require.NotEmpty(t, fullCodes)
	require.NotEmpty(t, readOnlyCodes)
	for _, code := range fullCodes {
		require.True(t, IsFull(failed(code)), "%v", code)
		require.False(t, IsReadOnly(failed(code)), "%v", code)
	}
	for _, code := range readOnlyCodes {
		require.True(t, IsReadOnly(failed(code)), "%v", code)
		require.False(t, IsFull(failed(code)), "%v", code)
	}
	for _, other := range []error{nil, errors.New("no code"), failed(syscall.Errno(5)), fs.ErrPermission} { // EIO, or an access list
		require.False(t, IsFull(other), "%v", other)
		require.False(t, IsReadOnly(other), "%v", other)
	}
}
