package command

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// A process is the holder only while it has the file locked: neither a process
// that waits for it nor one that has another file locked is.
func TestHoldsLock(t *testing.T) {
	path, other := filepath.Join(t.TempDir(), "app.lock"), filepath.Join(t.TempDir(), "app.lock")
	me := os.Getpid()
	unlock, err := persistence.NewFileLock(path).Lock(t.Context())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	open, err := os.Open(other)
	require.NoError(t, err)
	defer open.Close()
	require.True(t, holdsLock(me, path))
	require.False(t, holdsLock(me, other), "open and not locked")
	require.False(t, holdsLock(os.Getppid(), path))
	require.False(t, holdsLock(1, path))
	require.False(t, holdsLock(me, filepath.Join(t.TempDir(), "none")))
	require.NoError(t, unlock())
	require.False(t, holdsLock(me, path))
}
