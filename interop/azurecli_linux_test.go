package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Azure CLI, told to encrypt, signs in; a Go program uses that sign-in. Nothing
// changes in Azure CLI's folder and in the keyring.
func TestAzureCLIsEncryptedSignIn(t *testing.T) {
	env.Require(t, exec.Command("az", "--version").Run() == nil, "Azure CLI is not installed: apt-get install azure-cli")
	needLibsecret(t)
	bus, k, _ := serviceFolder(t)
	s, err := entratest.Start(entratest.Options{Interval: -1, AllowReuse: true})
	require.NoError(t, err)
	defer s.Close()
	a := azure{t, s, append(startProxy(t, s), "AZURE_CORE_ENCRYPT_TOKEN_CACHE=true"), t.TempDir()}
	a.run("login", "--use-device-code", "--tenant", entratest.Contoso)
	dir := filepath.Join(a.home, ".azure")
	t.Setenv("AZURE_CONFIG_DIR", dir)
	require.NoFileExists(t, filepath.Join(dir, "msal_token_cache.json"), "Azure CLI has encrypted")
	before, items := stateOf(t, dir), bus.Items(t)
	az, err := AzureCLI(Options{})
	require.NoError(t, err)
	app := clientOn(t, s, az, AzureCLIClientID)
	all := accountsOf(t, app)
	require.Len(t, all, 1)
	r, err := app.AcquireTokenSilent(t.Context(), []string{"https://management.core.windows.net//.default"}, public.WithSilentAccount(all[0]))
	require.NoError(t, err)
	require.Equal(t, before, stateOf(t, dir))
	require.Equal(t, items, bus.Items(t))
	token := a.run("account", "get-access-token", "--output", "tsv", "--query", "accessToken")
	require.Equal(t, r.AccessToken, strings.TrimSpace(token), "it is the token that Azure CLI has")

	k.Lock(t)
	locked, err := AzureCLI(Options{})
	require.NoError(t, err)
	_, err = locked.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
}

// The item that a later Azure CLI may make, made by MSAL Python.
func TestAzureCLIsLaterItem(t *testing.T) {
	needLibsecret(t)
	_, _, signal := serviceFolder(t)
	dir := filepath.Dir(signal)
	t.Setenv("AZURE_CONFIG_DIR", dir)
	cmd := pythonCommand("add", filepath.Join(dir, "msal_token_cache.sig"), "python", "1", "0")
	cmd.Env = append(os.Environ(), "SECRET_SERVICE=Microsoft Azure CLI:type=Token cache")
	require.Empty(t, startPeer(t, cmd).rest().errors)
	az, err := AzureCLI(Options{Clients: []string{"python-0"}})
	require.NoError(t, err)
	data, err := az.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "secret-of-python-0", secretOf(t, data, "python-0"))
}

// The released Azure CLI keeps its service principals in the same item: what they
// have overwritten is said, and not shown.
func TestAzureCLIsServicePrincipals(t *testing.T) {
	_, _, signal := serviceFolder(t)
	dir := filepath.Dir(signal)
	t.Setenv("AZURE_CONFIG_DIR", dir)
	path := filepath.Join(dir, "msal_token_cache.bin")
	writeFile(t, path, "")
	require.NoError(t, azureCLIItem.foreign().Set(t.Context(), []byte(`[{"client_id":"x","client_secret":"planted"}]`)))
	settle(t, path)
	az, err := AzureCLI(Options{})
	require.NoError(t, err)
	_, err = az.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrCorrupt)
	require.NotContains(t, err.Error(), "planted")
	require.NotEmpty(t, persistence.Remedy(err))
}
