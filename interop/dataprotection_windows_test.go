package interop

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/dpapi"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const cacheOfTest = `{"RefreshToken":{"k":{"home_account_id":"u.t","environment":"login.microsoftonline.com","client_id":"client-a","credential_type":"RefreshToken","secret":"mine"}}}`

// protectedFile is what msal-extensions write: a bare blob, without entropy.
func protectedFile(t *testing.T, path string) {
	t.Helper()
	blob, err := dpapi.Protect([]byte(cacheOfTest), nil)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, blob, 0o600))
}

func requireMine(t *testing.T, s *Store, err error, path string) {
	t.Helper()
	require.NoError(t, err)
	require.Equal(t, path, s.Describe().Location)
	require.True(t, s.Describe().Encrypted)
	data, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Contains(t, string(data), `"mine"`)
	require.ErrorIs(t, s.Save(t.Context(), []byte("{}")), ErrReadOnly)
}

func TestDataProtectionOfTheSystem(t *testing.T) {
	o := Options{Clients: []string{"client-a"}}
	path := filepath.Join(t.TempDir(), "cache.bin")
	s, err := DataProtection(path, o)
	require.NoError(t, err)
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	protectedFile(t, path)
	requireMine(t, s, nil, path)
	_, err = DataProtection(path, Options{Clients: o.Clients, Write: true})
	require.ErrorIs(t, err, ErrReadOnly)
	another, err := DataProtection(path, Options{Clients: []string{"another"}})
	require.NoError(t, err)
	_, err = another.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)

	// With entropy, or not whole, Windows does not decrypt it.
	blob, err := dpapi.Protect([]byte(cacheOfTest), []byte("entropy"))
	require.NoError(t, err)
	for _, bad := range [][]byte{blob, []byte("no blob at all")} {
		other := filepath.Join(t.TempDir(), "cache.bin")
		require.NoError(t, os.WriteFile(other, bad, 0o600))
		s, err := DataProtection(other, o)
		require.NoError(t, err)
		_, err = s.Load(t.Context())
		require.ErrorIs(t, err, persistence.ErrWrongKey)
		require.NotEmpty(t, persistence.Remedy(err))
	}
}

func TestConstructorsOfWindows(t *testing.T) {
	o, home := Options{Clients: []string{"client-a"}}, t.TempDir()
	for _, name := range []string{"LocalAppData", "USERPROFILE", "AZURE_CONFIG_DIR", "AZD_CONFIG_DIR"} {
		t.Setenv(name, filepath.Join(home, name))
	}
	path := filepath.Join(home, "LocalAppData", ".IdentityService", "msal.cache")
	protectedFile(t, path)
	s, err := AzureIdentity("", o)
	requireMine(t, s, err, path)

	path = filepath.Join(home, "AZD_CONFIG_DIR", "auth", "msal", "cache.bin")
	protectedFile(t, path)
	s, err = AzureDeveloperCLI(o)
	requireMine(t, s, err, path)
	blob, err := os.ReadFile(path)
	require.NoError(t, err)
	wrapped, err := json.Marshal(map[string]any{"type": "CryptProtectData", "data": blob})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, wrapped, 0o600))
	s, err = AzureDeveloperCLI(o)
	requireMine(t, s, err, path)

	dir := filepath.Join(home, "AZURE_CONFIG_DIR")
	bin, plain := filepath.Join(dir, "msal_token_cache.bin"), filepath.Join(dir, "msal_token_cache.json")
	s, err = AzureCLI(o)
	require.NoError(t, err)
	require.Equal(t, bin, s.Describe().Location, "the default")
	protectedFile(t, bin)
	s, err = AzureCLI(o)
	requireMine(t, s, err, bin)
	require.NoError(t, os.WriteFile(plain, []byte("{}"), 0o600))
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(bin, past, past))
	s, err = AzureCLI(o)
	require.NoError(t, err)
	require.Equal(t, plain, s.Describe().Location)
	require.False(t, s.Describe().Encrypted)

	_, err = SecretService(Item{Schema: "x"}, plain, o)
	require.NoError(t, err)
}
