//go:build linux || darwin

package interop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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

}

// To write as Azure CLI, a program must say so, also where it names the client id
// itself.
func TestWritingAsAzureCLIMustBeSaid(t *testing.T) {
	path := folder(t)
	t.Setenv("AZURE_CONFIG_DIR", filepath.Dir(path))
	open := map[string]func(Options) (*Store, error){
		"AzureCLI": AzureCLI,
		"File": func(o Options) (*Store, error) {
			o.Clients = []string{client, strings.ToUpper(AzureCLIClientID)}
			return File(path, o)
		},
	}
	for name, open := range open {
		_, err := open(Options{Write: true})
		require.ErrorContains(t, err, "only read", name)
		require.Contains(t, persistence.Remedy(err), "WriteAsAzureCLI", name)
		_, err = open(Options{Write: true, WriteAsAzureCLI: true})
		require.NoError(t, err, name)
		s, err := open(Options{WriteAsAzureCLI: true})
		require.NoError(t, err, name)
		require.ErrorIs(t, s.Delete(t.Context()), ErrReadOnly, name)
	}
}

// An account that would make Azure CLI fail is refused, and the file stays as it
// is.
func TestAzureCLIsUsernames(t *testing.T) {
	dir := filepath.Dir(folder(t))
	t.Setenv("AZURE_CONFIG_DIR", dir)
	account := func(home string) string {
		return fmt.Sprintf(`{"Account":{%[1]q:{"home_account_id":%[1]q,"environment":"login.microsoftonline.com","realm":"t","username":"ann@example.com"}},
			"RefreshToken":{%[1]q:{"home_account_id":%[1]q,"environment":"login.microsoftonline.com","client_id":%[2]q,"credential_type":"RefreshToken","secret":"x"}}}`, home, AzureCLIClientID)
	}
	s, err := AzureCLI(Options{Write: true, WriteAsAzureCLI: true})
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), []byte(account("u.t"))))
	before := stateOf(t, dir)
	both := strings.Replace(account("v.t"), `"Account":{`, `"Account":{"u":{"home_account_id":"u.t","environment":"login.microsoftonline.com","realm":"t","username":"ann@example.com"},`, 1)
	err = s.Save(t.Context(), []byte(both))
	require.ErrorIs(t, err, ErrUsername)
	require.Contains(t, persistence.Remedy(err), "az logout")
	require.NotContains(t, err.Error(), "ann@")
	require.Equal(t, before, stateOf(t, dir))
	require.NoError(t, s.Save(t.Context(), []byte(account("v.t"))), "instead of the other")
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
		_, err = AzureCLI(Options{Write: true, WriteAsAzureCLI: true})
		require.Equal(t, last != plain, errors.Is(err, ErrReadOnly), "%v", err)
		if last != plain {
			require.Equal(t, map[string]string{bin: "my_schema_name", sig: "Microsoft Azure CLI"}[last], s.item.Schema)
		}
	}
}
