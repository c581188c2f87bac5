//go:build linux || darwin

package interop

import (
	"os"
	"path/filepath"
	"runtime"
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

// Of the plain cache and the encrypted ones that is in use which was written last.
func TestAzureCLIEncrypted(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("AZURE_CONFIG_DIR", dir)
	plain, bin, sig := filepath.Join(dir, "msal_token_cache.json"), filepath.Join(dir, "msal_token_cache.bin"), filepath.Join(dir, "msal_token_cache.sig")
	now := time.Now()
	for _, order := range [][]string{{plain}, {bin}, {sig}, {plain, bin}, {bin, plain}, {plain, sig}, {sig, plain}, {bin, sig}, {sig, bin}, {plain, bin, sig}, {bin, sig, plain}} {
		for _, path := range []string{plain, bin, sig} {
			_ = os.Remove(path)
		}
		for i, path := range order {
			writeFile(t, path, "")
			at := now.Add(time.Duration(i-10) * time.Second)
			require.NoError(t, os.Chtimes(path, at, at))
		}
		last := order[len(order)-1]
		s, err := AzureCLI(Options{})
		if runtime.GOOS == "darwin" && last != plain {
			require.ErrorIs(t, err, persistence.ErrUnavailable)
			require.NotEmpty(t, persistence.Remedy(err))
			continue
		}
		require.NoError(t, err)
		require.Equal(t, persistence.Description{Backend: "Azure CLI", Location: last, Encrypted: last != plain}, s.Describe())
		if last != plain {
			require.Equal(t, map[string]string{bin: "my_schema_name", sig: "Microsoft Azure CLI"}[last], s.item.Schema)
		}
	}
}
