package filelock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// A backup, a virus scanner or an editor opens the lock file in a way that does not
// let others write it. A Lock waits for that as for another holder.
func TestForeignReader(t *testing.T) {
	for _, fair := range []bool{true, false} {
		path := lockPath(t)
		must(t, filelock.New(path, fair))()
		foreign := func() (end func()) {
			name, err := windows.UTF16PtrFromString(path)
			require.NoError(t, err)
			h, err := windows.CreateFile(name, windows.GENERIC_READ, windows.FILE_SHARE_READ, nil, windows.OPEN_EXISTING, 0, 0)
			require.NoError(t, err)
			return func() { windows.CloseHandle(h) }
		}
		end := foreign()
		env.Patiently(t, time.Second/5, func(ctx context.Context) bool {
			_, err := filelock.New(path, fair).Lock(ctx)
			var timeout *filelock.TimeoutError
			require.True(t, errors.As(err, &timeout), "%v", err)
			if timeout.Open {
				require.ErrorContains(t, err, "another program keeps the lock file open")
			}
			return timeout.Open
		})
		end()
		must(t, filelock.New(path, fair))() // what the wait has left behind is no obstacle

		end = foreign()
		done := make(chan error)
		go func() {
			unlock, err := filelock.New(path, fair).Lock(t.Context())
			if err == nil {
				err = unlock()
			}
			done <- err
		}()
		select {
		case err := <-done:
			t.Fatalf("it has not waited: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
		end()
		require.NoError(t, <-done)
	}
}
