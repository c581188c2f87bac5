package neighbour

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// opened opens the file as another program does, and returns what closes it.
func opened(t *testing.T, path string, share, flags uint32) (h windows.Handle, end func()) {
	t.Helper()
	name, err := windows.UTF16PtrFromString(path)
	require.NoError(t, err)
	h, err = windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE|windows.DELETE, share, nil, windows.OPEN_ALWAYS, flags, 0)
	require.NoError(t, err)
	ended := false
	end = func() {
		if !ended {
			ended = true
			windows.CloseHandle(h)
		}
	}
	t.Cleanup(end)
	return h, end
}

const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

func briefly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/5)
	t.Cleanup(cancel)
	return ctx
}

// MSAL.NET opens its lock file for itself alone, and Windows deletes the file when it is
// closed. While it is open the lock is held, and afterwards there is no lock.
func TestLockOfMSALNET(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.json")
	l, err := LockOf(t.Context(), path)
	require.NoError(t, err)
	require.Nil(t, l, "control")

	_, end := opened(t, LockPath(path), 0, windows.FILE_FLAG_DELETE_ON_CLOSE)
	_, err = os.Open(LockPath(path))
	require.ErrorIs(t, err, windows.ERROR_SHARING_VIOLATION, "control: it cannot be opened")
	ctx := briefly(t)
	l, err = LockOf(ctx, path)
	require.NoError(t, err)
	require.Error(t, ctx.Err(), "it has waited")
	require.True(t, l.Held)
	require.Zero(t, l.PID)
	require.WithinDuration(t, time.Now(), l.Since, time.Minute)

	// A save takes less time than the caller has.
	waiting := make(chan *Lock)
	go func() {
		l, err := LockOf(t.Context(), path)
		if err != nil {
			l = &Lock{Writer: err.Error()}
		}
		waiting <- l
	}()
	end()
	require.Nil(t, <-waiting)
	require.NoFileExists(t, LockPath(path))
}

// A lock file that was deleted, and that somebody such as a virus scanner still has
// open, denies everything until that one closes it.
func TestLockOfThatIsBeingDeleted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.json")
	h, endScanner := opened(t, LockPath(path), shareAll, 0)
	yes := byte(1)
	require.NoError(t, windows.SetFileInformationByHandle(h, windows.FileDispositionInfo, &yes, 1))
	name, err := windows.UTF16PtrFromString(LockPath(path))
	require.NoError(t, err)
	other, err := windows.CreateFile(name, windows.GENERIC_READ, shareAll, nil, windows.OPEN_EXISTING, 0, 0)
	if env.Wine() && err == nil {
		windows.CloseHandle(other)
		t.Log("Wine opens what is being deleted")
		return
	}
	require.ErrorIs(t, err, windows.ERROR_ACCESS_DENIED, "control")
	ctx := briefly(t)
	l, err := LockOf(ctx, path)
	require.NoError(t, err)
	require.Error(t, ctx.Err(), "it has waited")
	if l != nil { // where the name is still listed
		require.True(t, l.Held)
	}
	waiting := make(chan error)
	go func() {
		_, err := LockOf(t.Context(), path)
		waiting <- err
	}()
	endScanner()
	require.NoError(t, <-waiting)
	l, err = LockOf(t.Context(), path)
	require.NoError(t, err)
	require.Nil(t, l)
}

// MSAL Python and the extensions for Go lock the start of the file, which can be opened
// then, and on Windows, but not under Wine, not be read.
func TestLockOfALockedRange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.json")
	require.NoError(t, os.WriteFile(LockPath(path), []byte("12 az"), 0o600))
	since := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(LockPath(path), since, since))
	l, err := LockOf(t.Context(), path)
	require.NoError(t, err)
	require.False(t, l.Held, "control")
	require.Equal(t, "MSAL Python", l.Writer)

	h, end := opened(t, LockPath(path), shareAll, 0)
	require.NoError(t, windows.LockFileEx(h, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{}))
	l, err = LockOf(t.Context(), path)
	require.NoError(t, err)
	require.True(t, l.Held)
	end()
	l, err = LockOf(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, 12, l.PID)
	require.False(t, l.Held)
}

// What is no lock file is an error.
func TestLockOfAFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.json")
	require.NoError(t, os.Mkdir(LockPath(path), 0o700))
	_, err := LockOf(t.Context(), path)
	require.Error(t, err, "a folder is no lock file")
}
