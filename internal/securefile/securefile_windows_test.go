package securefile

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// foreign opens the file as another program does that shares it so far.
func foreign(t *testing.T, path string, rights, share uint32) (end func()) {
	name, err := windows.UTF16PtrFromString(path)
	require.NoError(t, err)
	h, err := windows.CreateFile(name, rights, share, nil, windows.OPEN_EXISTING, 0, 0)
	require.NoError(t, err)
	ended := false
	end = func() {
		if !ended {
			ended = true
			windows.CloseHandle(h)
		}
	}
	t.Cleanup(end)
	return end
}

// What another program keeps open for a moment is replaced, read and removed
// afterwards; for longer than the context, it is told who keeps it.
func TestForeignReader(t *testing.T) {
	const all = 1 << 20
	calls := map[string]func(ctx context.Context, path string) error{
		"replace": func(ctx context.Context, path string) error {
			_, err := Replace(ctx, path, []byte("new"))
			return err
		},
		"remove": Remove,
		"rename": func(ctx context.Context, path string) error { return Rename(ctx, path, path+".aside") },
		"read":   func(ctx context.Context, path string) error { _, _, err := Read(ctx, path, all); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cache")
			_, err := Replace(t.Context(), path, []byte("old"))
			require.NoError(t, err)
			share := uint32(windows.FILE_SHARE_READ)
			if name == "read" {
				share = 0
			}
			end := foreign(t, path, windows.GENERIC_READ, share)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/5)
			defer cancel()
			err = call(ctx, path)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "kept open by another program")
			end()
			data, _, err := Read(t.Context(), path, all)
			require.NoError(t, err)
			require.Equal(t, "old", string(data))

			end = foreign(t, path, windows.GENERIC_READ, share)
			done := make(chan error)
			go func() { done <- call(t.Context(), path) }()
			select {
			case err := <-done:
				t.Errorf("it has not waited: %v", err)
				return
			case <-time.After(300 * time.Millisecond):
			}
			end()
			require.NoError(t, <-done)
			names, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			for _, n := range names {
				require.NotContains(t, n.Name(), ".tmp")
			}
		})
	}
}

// The attribute "read-only" is no reason to fail, as mode 0400 is none elsewhere.
func TestReadOnlyAttribute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	readOnly := func() {
		_, err := Replace(t.Context(), path, []byte("old"))
		require.NoError(t, err)
		name, err := windows.UTF16PtrFromString(path)
		require.NoError(t, err)
		require.NoError(t, windows.SetFileAttributes(name, windows.FILE_ATTRIBUTE_READONLY))
	}
	readOnly()
	_, err := Replace(t.Context(), path, []byte("new"))
	require.NoError(t, err)
	data, _, err := Read(t.Context(), path, 10)
	require.NoError(t, err)
	require.Equal(t, "new", string(data))
	readOnly()
	require.NoError(t, Remove(t.Context(), path))
	require.NoFileExists(t, path)
	readOnly()
	require.NoError(t, Rename(t.Context(), path, path+".aside"))
	require.NoError(t, Remove(t.Context(), path+".aside"))
}

// As long as its writer lives, a temporary file is left alone, however old it is.
func TestATemporaryFileOfALivingWriterStays(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	alive, err := createTemp(dir, "cache")
	require.NoError(t, err)
	_, err = alive.f.WriteString("planted")
	require.NoError(t, err)
	require.NoError(t, alive.f.Sync())
	removeLeftovers(dir, "cache")
	require.FileExists(t, alive.path)
	alive.release()

	require.NoError(t, os.Chtimes(alive.path, old, old))
	living, err := createTemp(dir, "cache")
	require.NoError(t, err)
	defer living.release()
	when := windows.NsecToFiletime(old.UnixNano())
	require.NoError(t, windows.SetFileTime(living.handle(), nil, nil, &when))
	removeLeftovers(dir, "cache")
	require.NoFileExists(t, alive.path, "control: its writer has gone")
	require.FileExists(t, living.path)
}

// Which way a file is renamed is logged: an older system, another file system and
// Wine do not know the first one.
func TestWaysToRename(t *testing.T) {
	for n, way := range []struct {
		name         string
		class, flags uint32
	}{
		{"POSIX semantics, ignoring read-only", windows.FileRenameInfoEx, windows.FILE_RENAME_REPLACE_IF_EXISTS | windows.FILE_RENAME_POSIX_SEMANTICS | windows.FILE_RENAME_IGNORE_READONLY_ATTRIBUTE},
		{"POSIX semantics", windows.FileRenameInfoEx, windows.FILE_RENAME_REPLACE_IF_EXISTS | windows.FILE_RENAME_POSIX_SEMANTICS},
		{"by handle", windows.FileRenameInfo, 1},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "Größe 名前")
		require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
		temp, err := createTemp(dir, "cache")
		require.NoError(t, err)
		_, err = temp.f.WriteString("new")
		require.NoError(t, err)
		err = renameHandle(temp.handle(), path, way.class, way.flags)
		temp.release()
		t.Logf("%s: %v", way.name, err)
		if err != nil {
			require.True(t, isUnknown(err), "%v", err)
			env.Require(t, n > 0 || env.Wine(), "this system does not rename with POSIX semantics")
			continue
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "new", string(data))
	}
}

// What is made admits the user, the system and the administrators, whatever the
// folder hands down.
func TestAccessLists(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	require.NoError(t, MkdirAll(dir))
	path, lock := filepath.Join(dir, "cache"), filepath.Join(dir, "cache.lock")
	_, err := Replace(t.Context(), path, []byte("data"))
	require.NoError(t, err)
	require.NoError(t, MakeEmpty(lock))
	require.NotEmpty(t, ownSID())
	if env.Wine() {
		return // it keeps of a list what a mode can say
	}
	for _, path := range []string{dir, path, lock} {
		sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
		require.NoError(t, err)
		inherit := ""
		if path == dir {
			inherit = "OICI"
		}
		want := "D:P"
		for _, who := range []string{ownSID(), "SY", "BA"} {
			want += fmt.Sprintf("(A;%s;FA;;;%s)", inherit, who)
		}
		require.Equal(t, want, sd.String())
	}
	// Control: what others make there inherits.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), nil, fs.ModePerm))
	sd, err := windows.GetNamedSecurityInfo(filepath.Join(dir, "other"), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	require.NoError(t, err)
	require.Contains(t, sd.String(), "ID")
}
