package tokenkeep

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Windows names the folder also where the environment does not.
func TestDefaultDirWithoutAnEnvironment(t *testing.T) {
	require.False(t, isPackaged(), "the tests do not run in a package")
	t.Setenv("LocalAppData", "")
	dir, err := DefaultDir()
	require.NoError(t, err)
	require.Contains(t, dir, `AppData\Local\tokenkeep`)
}

// Where Windows has no shell, as in small containers, that is an error and no panic.
func TestDefaultDirWithoutAShell(t *testing.T) {
	before := folderFunctions
	t.Cleanup(func() { folderFunctions = before })
	t.Setenv("LocalAppData", "")
	for n, f := range before {
		folderFunctions = slices.Clone(before)
		folderFunctions[n] = windows.NewLazySystemDLL(f.Name + ".dll").NewProc(f.Name + "Nowhere")
		_, err := DefaultDir()
		require.ErrorContains(t, err, "%LocalAppData%")
		require.NotEmpty(t, persistence.Remedy(err))
	}
	dir := t.TempDir()
	t.Setenv("LocalAppData", dir)
	got, err := DefaultDir()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "tokenkeep"), got, "the environment says it")
}
