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
	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/opaque"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A Go program refreshes and signs in as Azure CLI, and Azure CLI goes on working
// with what it stored. An account on which Azure CLI would fail is refused.
func TestWritingAsAzureCLI(t *testing.T) {
	env.Require(t, exec.Command("az", "--version").Run() == nil, "Azure CLI is not installed: apt-get install azure-cli")
	folder(t)
	s, err := entratest.Start(entratest.Options{Interval: -1})
	require.NoError(t, err)
	defer s.Close()
	// Another account of that name, as after a user was deleted and made again.
	twin := entratest.User{Username: "ALICE@contoso.example", Name: "Alice", ID: "a0000000-0000-4000-8000-00000000000f", Tenant: entratest.Contoso}
	later, err := entratest.Start(entratest.Options{Interval: -1, Users: []entratest.User{twin}})
	require.NoError(t, err)
	defer later.Close()
	a := azure{t, s, startProxy(t, s), t.TempDir()}
	a.run("login", "--use-device-code", "--tenant", entratest.Contoso)
	dir := filepath.Join(a.home, ".azure")
	t.Setenv("AZURE_CONFIG_DIR", dir)
	path := filepath.Join(dir, "msal_token_cache.json")
	const management = "https://management.core.windows.net//.default"

	open := func(s *entratest.Server, change func(*Store)) public.Client {
		t.Helper()
		az, err := AzureCLI(Options{Write: true, WriteAsAzureCLI: true})
		require.NoError(t, err)
		change(az)
		cache, err := persistence.New(az, persistence.WithStrict())
		require.NoError(t, err)
		app, err := public.New(AzureCLIClientID, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client()),
			public.WithCache(cache), public.WithClientCapabilities([]string{"CP1"}))
		require.NoError(t, err)
		return app
	}
	token := func(app public.Client, of string) string {
		t.Helper()
		for _, account := range accountsOf(t, app) {
			if account.HomeAccountID == of {
				r, err := app.AcquireTokenSilent(t.Context(), []string{management}, public.WithSilentAccount(account))
				require.NoError(t, err)
				return r.AccessToken
			}
		}
		require.Fail(t, "the account is not there")
		return ""
	}
	signIn := func(s *entratest.Server, change func(*Store), u entratest.User) error {
		t.Helper()
		code, err := open(s, change).AcquireTokenByDeviceCode(t.Context(), []string{management})
		require.NoError(t, err)
		require.NoError(t, entratest.Approve(t.Context(), s.Client(), code.Result.VerificationURL, code.Result.UserCode, u.Username))
		_, err = code.AuthenticationResult(t.Context())
		return err
	}
	azToken := func() string {
		t.Helper()
		return strings.TrimSpace(a.run("account", "get-access-token", "--output", "tsv", "--query", "accessToken"))
	}
	expire := func() {
		t.Helper()
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		raw, err = entratest.Expire(raw)
		require.NoError(t, err)
		writeFile(t, path, string(raw))
	}
	as := func(*Store) {}
	alice := entratest.Alice.HomeAccountID()

	expire()
	refreshed := token(open(s, as), alice)
	require.Equal(t, refreshed, azToken(), "az uses what the Go program has refreshed")
	expire()
	again := azToken()
	require.NotEqual(t, refreshed, again)
	require.Equal(t, again, token(open(s, as), alice), "and the other way round")

	require.NoError(t, signIn(s, as, entratest.Bob))
	require.Equal(t, again, azToken(), "a second user has signed in")
	require.Len(t, accountsOf(t, open(s, as)), 2)
	require.Zero(t, s.Reuses(), "a spent refresh token was used")

	require.ErrorIs(t, signIn(later, as, twin), ErrUsername)
	require.Equal(t, again, azToken())

	withoutRule := func(s *Store) { s.lens = opaque.Hide(lens.New([]string{AzureCLIClientID}, false)) }
	require.NoError(t, signIn(later, withoutRule, twin))
	_, said, err := a.try("account", "get-access-token")
	require.Error(t, err, "control: without the rule")
	require.Contains(t, said, "Found multiple accounts")
}
