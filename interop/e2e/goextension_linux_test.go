//go:build cgo

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	extcache "github.com/AzureAD/microsoft-authentication-extensions-for-go/cache"
	"github.com/AzureAD/microsoft-authentication-extensions-for-go/cache/accessor"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() {
	programs["extension login"] = func(signal, endpoint string) error { return withExtension(signal, endpoint, true) }
	programs["extension silent"] = func(signal, endpoint string) error { return withExtension(signal, endpoint, false) }
}

var contoso = interop.Item{Schema: "contoso tokens", Attributes: map[string]string{"app": "contoso"}, Base64: true}

// withExtension is a program with MSAL Go on the cache of Microsoft's extension for
// Go. It prints an access token.
func withExtension(signal, endpoint string, login bool) error {
	transport, err := entratest.NewClient(endpoint)
	if err != nil {
		return err
	}
	storage, err := accessor.New(contoso.Schema, accessor.WithAttribute("app", "contoso"))
	if err != nil {
		return err
	}
	c, err := extcache.New(storage, signal)
	if err != nil {
		return err
	}
	token, err := signIn(transport, c, login)
	fmt.Println(token)
	return err
}

// signIn returns an access token of the user, with a device code or silently.
func signIn(transport *http.Client, c cache.ExportReplace, login bool) (string, error) {
	ctx := context.Background()
	app, err := public.New(client, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(transport), public.WithCache(c))
	if err != nil {
		return "", err
	}
	if login {
		code, err := app.AcquireTokenByDeviceCode(ctx, []string{scope})
		if err != nil {
			return "", err
		}
		if err := entratest.Approve(ctx, transport, code.Result.VerificationURL, code.Result.UserCode, entratest.Alice.Username); err != nil {
			return "", err
		}
		r, err := code.AuthenticationResult(ctx)
		return r.AccessToken, err
	}
	accounts, err := app.Accounts(ctx)
	if err != nil || len(accounts) != 1 {
		return "", fmt.Errorf("%d accounts, %w", len(accounts), err)
	}
	r, err := app.AcquireTokenSilent(ctx, []string{scope}, public.WithSilentAccount(accounts[0]))
	return r.AccessToken, err
}

// Microsoft's extension for Go keeps base64 text in the Secret Service. What it has
// signed in is used here; what is refreshed here it uses.
func TestExtensionForGo(t *testing.T) {
	const library = "libsecret-1.so" // what it opens; Debian has that name in a package for development
	found, err := filepath.Glob("/usr/lib/*/" + library + ".0")
	env.Require(t, err == nil && len(found) > 0, "libsecret is not installed: apt-get install libsecret-tools")
	libraries := t.TempDir()
	require.NoError(t, os.Symlink(found[0], filepath.Join(libraries, library)))
	bus := secretservice.StartBus(t)
	bus.StartKeyring(t, true)
	for _, set := range bus.Env() {
		if name, value, _ := strings.Cut(set, "="); name != "PATH" {
			t.Setenv(name, value)
		}
	}
	t.Setenv("LD_LIBRARY_PATH", libraries)
	s, err := entratest.Start(entratest.Options{Interval: -1}) // refresh tokens rotate: to use a spent one would sign the user out
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	signal := filepath.Join(t.TempDir(), "signal")
	f := &fixture{t: t, s: s, name: signal}
	theirs := strings.TrimSpace(f.ran("extension login"))

	store, err := interop.SecretService(contoso, signal, interop.Options{Clients: []string{client}, Write: true})
	require.NoError(t, err)
	c, err := persistence.New(store, persistence.WithStrict())
	require.NoError(t, err)
	token, err := signIn(s.Client(), c, false)
	require.NoError(t, err)
	require.Equal(t, theirs, token)

	require.NoError(t, c.Update(t.Context(), entratest.Expire))
	refreshed, err := signIn(s.Client(), c, false)
	require.NoError(t, err)
	require.NotEqual(t, theirs, refreshed)
	require.Equal(t, refreshed, strings.TrimSpace(f.ran("extension silent")))
	require.Len(t, bus.Items(t), 1)
	require.Zero(t, s.Reuses(), "a spent refresh token was used")

	raw := contoso
	raw.Base64 = false
	other, err := interop.SecretService(raw, signal, interop.Options{Clients: []string{client}})
	require.NoError(t, err)
	_, err = other.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrCorrupt, "control: it is base64")
}
