package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestCredentialManager(t *testing.T) {
	k, service := realKeyring(t)
	testItems(t, k, service)
}

func TestCredentialManagerKeys(t *testing.T) {
	k, service := realKeyring(t)
	testKeysOfProcesses(t, k, service)
}

// Every logon session in which the tests run keeps credentials, and a function that
// this Windows does not have is an error and no panic.
func TestCredentialManagerOfThisLogon(t *testing.T) {
	require.NoError(t, checkLogon())
	require.NoError(t, checkFunctions(credFunctions))
	err := checkFunctions([]*windows.LazyProc{advapi32.NewProc("CredReadFromNowhereW")})
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Equal(t, NoService, SituationOf(err))
}

// The items of a service are listed, whatever its name has in it, and nobody else's.
func TestCredentialManagerListsItems(t *testing.T) {
	k, service := realKeyring(t)
	lister, ok := System().(Lister)
	require.True(t, ok)
	for _, odd := range []string{"", " and more", ":x", "*", "?", "/Größe 名前", `\"'%`} {
		service := service + odd
		users, err := lister.List(t.Context(), service)
		require.NoError(t, err, service)
		require.Empty(t, users, service)
	}
	for _, odd := range []string{"", " and more", ":x", "*", "?", "/Größe 名前", `\"'%`} {
		service := service + odd
		want := []string{"Größe 名前", "a*?", "alice", "with space"}
		for _, user := range want {
			require.NoError(t, k.Set(t.Context(), service, user, "planted"))
			t.Cleanup(func() { _ = System().Delete(context.Background(), service, user) })
		}
		users, err := lister.List(t.Context(), service)
		require.NoError(t, err, service)
		require.Equal(t, want, users, service)
		require.NoError(t, k.Delete(t.Context(), service, "alice"))
		users, err = lister.List(t.Context(), service)
		require.NoError(t, err, service)
		require.Equal(t, []string{"Größe 名前", "a*?", "with space"}, users, service)
	}
	got, err := k.Get(t.Context(), service, "a*?")
	require.NoError(t, err)
	require.Equal(t, "planted", got, "a list changes nothing")
}

// Values larger than an item are split over several, each replaced by the next
// one, and nothing is left of them at the end. (The whole conformance suite
// cannot run under Wine, which keeps credentials in its registry: a Get beside a
// Delete fails there with "key deleted".)
func TestCredentialManagerSplits(t *testing.T) {
	k, service := realKeyring(t)
	lock := persistence.NewFileLock(filepath.Join(t.TempDir(), "cache.lock"))
	open := func() persistence.Versioned {
		p, err := New(k, service, "alice", lock)
		require.NoError(t, err)
		return p
	}
	rev := ""
	for _, size := range []int{0, 1, 2_000, 60_000, 3_000, 20_000, 10} {
		data := make([]byte, size)
		rand.Read(data)
		var err error
		rev, err = open().SaveIf(t.Context(), data, rev)
		require.NoError(t, err)
		got, gotRev, err := open().LoadRevision(t.Context())
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		require.Equal(t, rev, gotRev)
	}
	_, err := open().SaveIf(t.Context(), nil, "stale")
	require.ErrorIs(t, err, persistence.ErrConflict)
	require.NoError(t, open().DeleteIf(t.Context(), rev))
	_, err = open().Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.Greater(t, len(k.(*recorded).users), 20)
	for user := range k.(*recorded).users {
		_, err := k.Get(t.Context(), service, user)
		require.ErrorIs(t, err, persistence.ErrNotFound, user)
	}
}
