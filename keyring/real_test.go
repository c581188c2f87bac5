//go:build windows || darwin

package keyring

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// realKeyring is the operating system's, under a service that nobody else uses and
// of which nothing is left when the test ends.
func realKeyring(t testing.TB) (k Limited, service string) {
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

// testItems stores, replaces and deletes items.
func testItems(t *testing.T, k Limited, service string) {
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

// testKeysOfProcesses shows that another process has the key that this one made.
func testKeysOfProcesses(t *testing.T, k Limited, service string) {
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
