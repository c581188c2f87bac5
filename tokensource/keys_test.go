package tokensource

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Programs list who is signed in, are told of changes, and sign all out.
func TestKeys(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	c := w.cache()
	keys, err := Keys(t.Context(), c)
	require.NoError(t, err)
	require.Empty(t, keys)
	authority, err := entratest.Start(entratest.Options{})
	require.NoError(t, err)
	defer authority.Close()
	_, err = authority.SignIn(t.Context(), c, "app", entratest.Alice, "User.Read")
	require.NoError(t, err)
	secrets, err := c.Entries("contoso-cli")
	require.NoError(t, err)
	require.NoError(t, secrets.Set(t.Context(), "k", []byte("v")))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := c.Watch(ctx, time.Millisecond)
	var sources []*Source
	for _, key := range []string{"b", "a"} {
		s, err := New(t.Context(), w.cache(), key, w.server.Config())
		require.NoError(t, err)
		require.NoError(t, s.Save(t.Context(), w.newSignIn()))
		sources = append(sources, s)
		change := <-changes
		require.Equal(t, []string{key}, change.AddedKeys)
		require.Empty(t, change.RemovedKeys)
		require.Empty(t, change.Added)
		require.Len(t, change.Accounts, 1)
	}
	keys, err = Keys(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, keys)
	require.NoError(t, sources[0].Delete(t.Context()))
	change := <-changes
	require.Equal(t, []string{"a"}, change.Keys)
	require.Equal(t, []string{"b"}, change.RemovedKeys)

	require.NoError(t, c.SignOutAll(t.Context()))
	change = <-changes
	require.Equal(t, []string{"a"}, change.RemovedKeys)
	require.Len(t, change.Removed, 1)
	require.Empty(t, change.Accounts)
	data, err := c.Load(t.Context())
	require.NoError(t, err)
	for _, secret := range authority.Issued() {
		require.NotContains(t, string(data), secret)
	}
	value, err := secrets.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "v", string(value), "secrets of the program stay")
	require.NoError(t, c.SignOutAll(t.Context()))

	s, err := New(t.Context(), w.cache(), "a", new(oauth2.Config))
	require.NoError(t, err)
	_, err = s.Token()
	require.ErrorIs(t, err, ErrSignInRequired)

	require.NoError(t, c.Update(t.Context(), func([]byte) ([]byte, error) { return []byte("not a cache"), nil }))
	_, err = Keys(t.Context(), c)
	require.ErrorIs(t, err, persistence.ErrCorrupt)
}
