//go:build linux || darwin

package interop

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestAzureCLIFindsItsCache(t *testing.T) {
	home, set := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("AZURE_CONFIG_DIR", "")
	s, err := AzureCLI(Options{})
	require.NoError(t, err)
	require.Equal(t, persistence.Description{Backend: "Azure CLI", Location: filepath.Join(home, ".azure", "msal_token_cache.json")}, s.Describe())
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NoDirExists(t, filepath.Join(home, ".azure"))

	t.Setenv("AZURE_CONFIG_DIR", set)
	path := filepath.Join(set, "msal_token_cache.json")
	writeFile(t, path, rt(AzureCLIClientID, "of az"))
	s, err = AzureCLI(Options{})
	require.NoError(t, err)
	data, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "of az", secretOf(t, data, AzureCLIClientID))

	_, err = AzureCLI(Options{Write: true})
	require.Error(t, err)
}

// Of the plain cache and the encrypted one that is in use which was written last.
func TestAzureCLIEncrypted(t *testing.T) {
	for _, name := range []string{"msal_token_cache.bin", "msal_token_cache.sig"} {
		dir := t.TempDir()
		t.Setenv("AZURE_CONFIG_DIR", dir)
		plain, encrypted := filepath.Join(dir, "msal_token_cache.json"), filepath.Join(dir, name)
		writeFile(t, encrypted, "")
		_, err := AzureCLI(Options{})
		require.ErrorIs(t, err, persistence.ErrUnavailable)
		require.NotEmpty(t, persistence.Remedy(err))
		writeFile(t, plain, "{}")
		old := time.Now().Add(-time.Hour)
		require.NoError(t, os.Chtimes(encrypted, old, old))
		_, err = AzureCLI(Options{})
		require.NoError(t, err)
		require.NoError(t, os.Chtimes(plain, old.Add(-time.Hour), old.Add(-time.Hour)))
		_, err = AzureCLI(Options{})
		require.ErrorIs(t, err, persistence.ErrUnavailable)
	}
}
