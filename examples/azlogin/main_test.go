//go:build linux || darwin

package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Another program stands for Azure CLI: it keeps its tokens in the same file, under
// the same lock and keys. (A test of package interop runs this example beside the
// real one.)
func TestAzlogin(t *testing.T) {
	p := env.BuildProgram(t)
	t.Setenv("HOME", p.Home)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	a, err := demo.Start("azlogin")
	require.NoError(t, err)
	defer a.Close()
	p.Env = append(p.Env, a.Env())
	require.Contains(t, p.Run(t, 1), "run az login")

	path := filepath.Join(p.Home, ".azure", "msal_token_cache.json")
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	store, err := interop.File(path, interop.Options{Clients: []string{interop.AzureCLIClientID}, Write: true, WriteAsAzureCLI: true})
	require.NoError(t, err)
	az, err := persistence.New(store)
	require.NoError(t, err)
	const management = "https://management.core.windows.net//.default"
	_, err = a.SignIn(t.Context(), az, interop.AzureCLIClientID, entratest.Alice, management)
	require.NoError(t, err)
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	require.Contains(t, p.Run(t, 0), "alice@contoso.example: a token until ")
	const vault = "https://vault.azure.net/.default"
	require.Contains(t, p.Run(t, 0, vault), "from a refresh")
	require.Contains(t, p.Run(t, 0, vault), "which was there", "it is kept between runs")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))

	require.NoError(t, az.Delete(t.Context()))
	require.Contains(t, p.Run(t, 1, vault), "run az login")
}
