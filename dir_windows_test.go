package tokenkeep

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Windows names the folder also where the environment does not.
func TestDefaultDirWithoutAnEnvironment(t *testing.T) {
	require.False(t, isPackaged(), "the tests do not run in a package")
	t.Setenv("LocalAppData", "")
	dir, err := DefaultDir()
	require.NoError(t, err)
	require.Contains(t, dir, `AppData\Local\tokenkeep`)
}
