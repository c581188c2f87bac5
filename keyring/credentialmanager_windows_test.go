package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// credentials is Credential Manager, under a service that nobody else uses and
// of which nothing is left when the test ends.
func credentials(t testing.TB) (k Limited, service string) {
	r := &recorded{Limited: System(), users: map[string]bool{}}
	service = "tokenkeep-test-" + rand.Text()
	t.Cleanup(func() {
		for user := range r.users {
			if err := r.Delete(context.Background(), service, user); err != nil {
				require.ErrorIs(t, err, persistence.ErrNotFound)
			}
		}
	})
	return r, service
}

// recorded notes the users of a service that were ever set.
type recorded struct {
	Limited
	mu    sync.Mutex
	users map[string]bool
}

func (r *recorded) Set(ctx context.Context, service, user, secret string) error {
	r.mu.Lock()
	r.users[user] = true
	r.mu.Unlock()
	return r.Limited.Set(ctx, service, user, secret)
}

func TestCredentialManager(t *testing.T) {
	k, service := credentials(t)
	ctx := t.Context()
	_, err := k.Get(ctx, service, "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.ErrorIs(t, k.Delete(ctx, service, "alice"), persistence.ErrNotFound)
	limit := k.ItemLimit(service, "alice")
	for _, secret := range []string{"one", "two, Größe/名前", strings.Repeat("x", limit), "three"} {
		require.NoError(t, k.Set(ctx, service, "alice", secret))
		got, err := k.Get(ctx, service, "alice")
		require.NoError(t, err)
		require.Equal(t, secret, got)
	}
	err = k.Set(ctx, service, "alice", strings.Repeat("x", limit+1))
	require.ErrorIs(t, err, persistence.ErrTooLarge)
	require.NoError(t, k.Set(ctx, service, "bob", "another"))
	require.NoError(t, k.Delete(ctx, service, "alice"))
	_, err = k.Get(ctx, service, "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	got, err := k.Get(ctx, service, "bob")
	require.NoError(t, err)
	require.Equal(t, "another", got)
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

// Values larger than an item are split over several, each replaced by the next
// one, and nothing is left of them at the end. (The whole conformance suite
// cannot run under Wine, which keeps credentials in its registry: a Get beside a
// Delete fails there with "key deleted".)
func TestCredentialManagerSplits(t *testing.T) {
	k, service := credentials(t)
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

// Another process has the key that this one made.
func TestCredentialManagerKeys(t *testing.T) {
	k, service := credentials(t)
	id := strings.ToLower(rand.Text())
	source := NewKeys(k, service)
	ref, key, err := source.NewKey(t.Context(), id)
	require.NoError(t, err)
	exe, err := os.Executable()
	require.NoError(t, err)
	another := exec.Command(exe, service, ref)
	another.Env = append(os.Environ(), "TOKENKEEP_TEST_PROGRAM=read-key")
	another.Stderr = os.Stderr
	out, err := another.Output()
	require.NoError(t, err)
	require.Equal(t, key, out)
	require.NoError(t, source.DeleteKey(t.Context(), ref))
	_, err = source.Key(t.Context(), ref)
	require.ErrorIs(t, err, persistence.ErrKeyMissing)
}

func init() {
	programs["read-key"] = func(args []string) error {
		key, err := NewKeys(System(), args[0]).Key(context.Background(), args[1])
		if err == nil {
			_, err = os.Stdout.Write(key)
		}
		return err
	}
}
