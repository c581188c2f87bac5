package persistence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// Every kind of trouble with a lock has its class, where there is one, and says
// what to do.
func TestLockErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		class  error
		remedy bool
	}{
		{&filelock.TimeoutError{PID: 4711, Err: errors.New("ended")}, ErrLockTimeout, true},
		{&filelock.TimeoutError{PID: 4711, Err: context.DeadlineExceeded}, ErrLockTimeout, true},
		{&filelock.TimeoutError{PID: 4711, Err: context.Canceled}, ErrLockTimeout, false},
		{fmt.Errorf("%w: no locks available", filelock.ErrNoLocks), ErrUnavailable, true},
		{&securefile.Error{Path: "p", Reason: "is a FIFO", Advice: "Move it away.", Err: fs.ErrPermission}, fs.ErrPermission, true},
		{&fs.PathError{Op: "open", Path: "p", Err: fs.ErrPermission}, fs.ErrPermission, true},
		{errors.New("input/output error"), nil, false},
	} {
		err := lockError("p", tt.err)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "lock", e.Op)
		require.ErrorIs(t, err, tt.err)
		if tt.class != nil {
			require.ErrorIs(t, err, tt.class)
		}
		require.Equal(t, tt.remedy, e.Remedy != "", tt.err)
		require.Equal(t, tt.remedy && errors.Is(err, ErrLockTimeout), strings.Contains(err.Error(), "process 4711"), "a wait that was cancelled blames nobody")
	}
}
