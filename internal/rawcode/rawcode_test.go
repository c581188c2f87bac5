package rawcode

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestCodes(t *testing.T) {
	require.Empty(t, Of(nil))
	require.Empty(t, Of(errors.New("plain")))
	require.NoError(t, With("x", nil))

	inner := fmt.Errorf("%w: %w", persistence.ErrUnavailable, With("inner: exit status 2", errors.New("denied")))
	err := With("outer: exit status 1", remedy.With("Do this.", errors.Join(inner, With("inner: exit status 2", fs.ErrPermission))))
	require.Equal(t, []string{"outer: exit status 1", "inner: exit status 2"}, Of(err), "each once, from the outside in")
	require.Equal(t, inner.Error()+"\npermission denied", err.Error(), "texts stay as they are")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Equal(t, "Do this.", persistence.Remedy(err))

	number := Number(runtime.GOOS, syscall.EACCES)
	path := &fs.PathError{Op: "open", Path: "/secret/path", Err: syscall.EACCES}
	require.Equal(t, []string{number}, Of(path), "and no path")
	other := Copy(errors.Join(err, path), "call", errors.New("replaced"))
	require.Equal(t, []string{"call: outer: exit status 1", "call: inner: exit status 2", "call: " + number}, Of(other), "the path's error is one more")
	require.EqualError(t, other, "replaced")
	require.Equal(t, Of(path), Of(Copy(path, "", errors.New("replaced"))))
	require.NoError(t, Copy(path, "", nil))
	require.Equal(t, []string{"call: " + number}, Of(Copy(path, "call", path)))
	plain := errors.New("replaced")
	require.Equal(t, plain, Copy(errors.New("plain"), "call", plain))
}

func TestNumbers(t *testing.T) {
	require.Equal(t, "error 1312 (0x520)", Number("windows", 1312))
	dpapi := uint32(0x8009000B)
	require.Equal(t, "error 2148073483 (0x8009000B)", Number("windows", syscall.Errno(dpapi)))
	require.Equal(t, "errno 13", Number("linux", 13))
}
