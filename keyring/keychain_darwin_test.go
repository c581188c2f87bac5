package keyring

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gokeyring "github.com/zalando/go-keyring"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// The default keychain of this session, which the tests use only where they may:
// .github/workflows/platforms.yml makes one for them.
func TestKeychain(t *testing.T) {
	env.Require(t, os.Getenv("TOKENKEEP_REAL") == "1", "set TOKENKEEP_REAL=1 to let the test store items in your default keychain and delete them")
	t.Run("items", func(t *testing.T) {
		k, service := realKeyring(t)
		testItems(t, k, service)
	})
	t.Run("keys of processes", func(t *testing.T) {
		k, service := realKeyring(t)
		testKeysOfProcesses(t, k, service)
	})
	t.Run("names", func(t *testing.T) {
		k, prefix := realKeyring(t)
		for _, name := range []string{"-w", "with space", `it's "quoted" \\`, "Größe/名前", strings.Repeat(`"\\`, 100)} {
			user := prefix + name
			limit := k.ItemLimit(prefix, user)
			require.NoError(t, k.Set(t.Context(), prefix, user, strings.Repeat("x", limit)))
			got, err := k.Get(t.Context(), prefix, user)
			require.NoError(t, err)
			require.Len(t, got, limit)
			require.NoError(t, k.Set(t.Context(), prefix, user, "secret"))
			theirs, err := gokeyring.Get(prefix, user)
			require.NoError(t, err)
			require.Equal(t, "secret", theirs, "go-keyring reads the same item")
			require.NoError(t, k.Delete(t.Context(), prefix, user))
			_, err = k.Get(t.Context(), prefix, user)
			require.ErrorIs(t, err, persistence.ErrNotFound)
		}
	})
	// Every keychain that this session searches is open, so what is not there is gone.
	t.Run("a key that was never made", func(t *testing.T) {
		searched, err := System().(*system).Keychains(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, searched)
		_, err = NewKeys(System(), "tokenkeep-test-"+rand.Text()).Key(t.Context(), "0123")
		require.ErrorIs(t, err, persistence.ErrKeyMissing)
	})
	// The whole home folder is another one: there is no keychain, and macOS is not
	// asked to keep anything.
	t.Run("another home", func(t *testing.T) {
		t.Setenv("HOME", t.TempDir())
		k, service := realKeyring(t)
		require.Equal(t, NoSession, SituationOf(k.Set(t.Context(), service, "alice", "secret")))
	})
}
