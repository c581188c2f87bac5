//go:build linux || darwin

package interop

import (
	"os"
	"path/filepath"
	"testing"

	gofrs "github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// azd is a stand-in for azd's file cache, after its source: under its lock, which
// stays, it writes in place.
func azd(t *testing.T, path, data string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	l := gofrs.New(path + ".lock")
	require.NoError(t, l.Lock())
	writeFile(t, path, data)
	require.NoError(t, l.Unlock())
}

func TestAzureDeveloperCLI(t *testing.T) {
	folder(t)
	t.Setenv("AZD_CONFIG_DIR", "")
	path := filepath.Join(os.Getenv("HOME"), ".azd", "auth", "msal", "cache.json")
	s, err := AzureDeveloperCLI(Options{})
	require.NoError(t, err)
	require.Equal(t, persistence.Description{Backend: "Azure Developer CLI", Location: path}, s.Describe())
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NoDirExists(t, filepath.Join(os.Getenv("HOME"), ".azd"))

	azd(t, path, rt(AzureCLIClientID, "of azd"))
	before := stateOf(t, filepath.Dir(path))
	data, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "of azd", secretOf(t, data, AzureCLIClientID))
	require.ErrorIs(t, s.Save(t.Context(), []byte("{}")), ErrReadOnly)
	require.Equal(t, before, stateOf(t, filepath.Dir(path)))

	set := t.TempDir()
	t.Setenv("AZD_CONFIG_DIR", set)
	azd(t, filepath.Join(set, "auth", "msal", "cache.json"), rt(AzureCLIClientID, "elsewhere"))
	s, err = AzureDeveloperCLI(Options{})
	require.NoError(t, err)
	data, err = s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "elsewhere", secretOf(t, data, AzureCLIClientID))

	_, err = AzureDeveloperCLI(Options{Write: true})
	require.ErrorIs(t, err, ErrReadOnly)
	require.NotEmpty(t, persistence.Remedy(err))
}
