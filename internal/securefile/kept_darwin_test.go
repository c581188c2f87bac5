package securefile

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Where macOS does not remove the list of a new file, no plaintext is written to it.
// Nothing can be removed from a file that is closed.
func TestPlaintextWithAListThatStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	f, err := os.Create(path)
	require.NoError(t, err)
	made := &temp{path: path, f: f}
	require.NoError(t, made.keepPlain(path), "control")
	require.NoError(t, f.Close())
	err = made.keepPlain(path)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorIs(t, err, unix.EBADF)
}
