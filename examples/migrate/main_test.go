package main_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// peer writes what the extensions' plaintext accessor writes: MSAL's bytes, as
// they are.
type peer string

func (p peer) Replace(context.Context, cache.Unmarshaler, cache.ReplaceHints) error { return nil }

func (p peer) Export(_ context.Context, m cache.Marshaler, _ cache.ExportHints) error {
	data, err := m.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(string(p)), 0o700); err != nil {
		return err
	}
	return os.WriteFile(string(p), data, 0o600)
}

// signIn signs in as a program did that used the extensions.
func signIn(t *testing.T, old string) {
	t.Helper()
	server, err := entratest.Start(entratest.Options{})
	require.NoError(t, err)
	defer server.Close()
	httpClient := server.Client()
	client, err := public.New(demo.ClientID, public.WithAuthority(entratest.Authority(demo.Tenant)), public.WithHTTPClient(httpClient), public.WithCache(peer(old)))
	require.NoError(t, err)
	code, err := client.AcquireTokenByDeviceCode(t.Context(), []string{"User.Read"})
	require.NoError(t, err)
	require.NoError(t, entratest.Approve(t.Context(), httpClient, code.Result.VerificationURL, code.Result.UserCode, demo.User))
	_, err = code.AuthenticationResult(t.Context())
	require.NoError(t, err)
}

func TestMigrate(t *testing.T) {
	p := env.BuildProgram(t)
	old := filepath.Join(p.Home, ".contoso", "msal.cache")
	signIn(t, old)
	require.NoError(t, os.WriteFile(old+".lockfile", nil, 0o600))

	out := p.Run(t, 0, "-from", old)
	require.Contains(t, out, "The sign-in was moved.")
	require.Contains(t, out, "alice@contoso.example is still signed in.")
	left, err := os.ReadDir(filepath.Dir(old))
	require.NoError(t, err)
	require.Empty(t, left)

	out = p.Run(t, 0, "-from", old)
	require.NotContains(t, out, "was moved")
	require.Contains(t, out, "alice@contoso.example is still signed in.")

	// A torn file is of no use, and does no harm.
	require.NoError(t, os.WriteFile(old, []byte(`{"AccessToken":{`), 0o600))
	out = p.Run(t, 0, "-from", old)
	require.NotContains(t, out, "was moved")
	require.NoFileExists(t, old)
}
