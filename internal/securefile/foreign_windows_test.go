package securefile

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// A folder that another program keeps open, and does not share, is no obstacle for
// what happens in it. To list it, one has to wait.
func TestForeignFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tokens")
	path := filepath.Join(dir, "cache")
	_, err := Replace(t.Context(), path, []byte("old"))
	require.NoError(t, err)
	name, err := windows.UTF16PtrFromString(dir)
	require.NoError(t, err)
	h, err := windows.CreateFile(name, windows.GENERIC_READ, 0, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	require.NoError(t, err)
	end := func() {
		if h != 0 {
			windows.CloseHandle(h)
			h = 0
		}
	}
	defer end()
	_, err = os.Open(dir)
	require.ErrorIs(t, err, windows.ERROR_SHARING_VIOLATION, "control: it is kept open")

	_, err = Replace(t.Context(), path, []byte("new"))
	require.NoError(t, err)
	data, _, err := Read(t.Context(), path, 10)
	require.NoError(t, err)
	require.Equal(t, "new", string(data))
	require.NoError(t, Rename(t.Context(), path, path+".aside"))
	require.NoError(t, Remove(t.Context(), path+".aside"))
	require.NoError(t, MakeEmpty(path+".lock"))
	require.NoError(t, MkdirAll(filepath.Join(dir, "a", "b")))
	_, err = MakeDir(dir)
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), time.Second/5)
	defer cancel()
	_, err = ReadDir(ctx, dir)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "kept open by another program")
	end()
	entries, err := ReadDir(t.Context(), dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}

// Another program's file is read without keeping that program from replacing it, and
// waited for while the program writes it.
func TestOpenForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "theirs")
	require.NoError(t, os.WriteFile(path, []byte("theirs"), 0o600))
	_, err := OpenForeign(t.Context(), path+".missing")
	require.ErrorIs(t, err, os.ErrNotExist)

	f, err := OpenForeign(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, os.Rename(path, path+".moved"))
	require.NoError(t, f.Close())
	f, err = os.Open(path + ".moved")
	require.NoError(t, err)
	require.Error(t, os.Rename(path+".moved", path), "control: os.Open keeps it from being renamed")
	require.NoError(t, f.Close())
	require.NoError(t, os.Rename(path+".moved", path))

	end := foreign(t, path, windows.GENERIC_WRITE, 0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/5)
	defer cancel()
	_, err = OpenForeign(ctx, path)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "kept open by another program")
	end()
	f, err = OpenForeign(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
