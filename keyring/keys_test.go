package keyring_test

import (
	"context"
	"encoding/base64"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// What package encrypted asks of a source of keys.
var _ interface {
	Source() string
	NewKey(ctx context.Context, id string) (ref string, key []byte, err error)
	Key(ctx context.Context, ref string) (key []byte, err error)
	DeleteKey(ctx context.Context, ref string) error
} = (*keyring.Keys)(nil)

func TestKeys(t *testing.T) {
	ctx := t.Context()
	k := keyringtest.New()
	s := keyring.NewKeys(k, "app")
	require.Equal(t, "keyring", s.Source())

	_, err := s.Key(ctx, "id1")
	require.ErrorIs(t, err, persistence.ErrKeyMissing)
	require.NotErrorIs(t, err, persistence.ErrNotFound)

	ref, key, err := s.NewKey(ctx, "id1")
	require.NoError(t, err)
	require.Equal(t, "id1", ref)
	require.Len(t, key, 32)
	require.Equal(t, map[keyringtest.Item]string{
		{Service: "app", User: "tokenkeep key id1"}: base64.RawURLEncoding.EncodeToString(key),
	}, k.Items())
	_, other, err := s.NewKey(ctx, "id2")
	require.NoError(t, err)
	require.NotEqual(t, key, other)

	// The same id, even from another process, is the same key.
	_, again, err := keyring.NewKeys(k.Reopen(), "app").NewKey(ctx, "id1")
	require.NoError(t, err)
	require.Equal(t, key, again)

	before := len(k.Calls())
	got, err := s.Key(ctx, ref+" name=value")
	require.NoError(t, err)
	require.Equal(t, key, got)
	require.Len(t, k.Calls(), before+1, "a Key is one call of the keyring")

	k.SetLocked(true)
	_, err = s.Key(ctx, ref)
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.NotErrorIs(t, err, persistence.ErrKeyMissing)
	_, _, err = s.NewKey(ctx, "id3")
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.ErrorIs(t, s.DeleteKey(ctx, ref), persistence.ErrKeyringLocked)
	k.SetLocked(false)

	require.NoError(t, s.DeleteKey(ctx, ref))
	require.NoError(t, s.DeleteKey(ctx, ref), "deleting what is not there succeeds")
	_, err = s.Key(ctx, ref)
	require.ErrorIs(t, err, persistence.ErrKeyMissing)
	_, err = s.Key(ctx, "id2")
	require.NoError(t, err, "only the one key is deleted")

	for _, bad := range []string{"", " x", "a b", "a\nb"} {
		_, _, err := s.NewKey(ctx, bad)
		require.Error(t, err, "%q", bad)
	}
}

func TestKeysNeverOverwrites(t *testing.T) {
	ctx := t.Context()
	const secret = "planted-secret"
	for _, text := range []string{"", secret, base64.RawURLEncoding.EncodeToString(make([]byte, 31)), base64.StdEncoding.EncodeToString(make([]byte, 32))} {
		k := keyringtest.New()
		require.NoError(t, k.Set(ctx, "app", "tokenkeep key id", text))
		s := keyring.NewKeys(k, "app")
		_, _, err := s.NewKey(ctx, "id")
		require.ErrorIs(t, err, persistence.ErrCorrupt)
		require.NotContains(t, err.Error(), secret)
		_, err = s.Key(ctx, "id")
		require.ErrorIs(t, err, persistence.ErrKeyMissing)
		require.NotContains(t, err.Error(), secret)
		require.Equal(t, text, k.Items()[keyringtest.Item{Service: "app", User: "tokenkeep key id"}])
	}
}

// A keyring that forgets what it was given is found out before anything is
// encrypted with the key.
func TestKeysProvesTheKeyring(t *testing.T) {
	_, _, err := keyring.NewKeys(forgetful{keyringtest.New()}, "app").NewKey(t.Context(), "id")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
}

type forgetful struct{ keyring.Keyring }

func (forgetful) Set(context.Context, string, string, string) error { return nil }

// A NewKey that is cut off anywhere is finished by the next one of that id,
// with one key.
func TestKeysAfterACrash(t *testing.T) {
	ctx := t.Context()
	for n := 1; n <= 3; n++ {
		for _, applied := range []bool{false, true} {
			k := keyringtest.New()
			k.CrashAt(n, applied)
			_, _, err := keyring.NewKeys(k, "app").NewKey(ctx, "id")
			require.True(t, errors.Is(err, keyringtest.ErrCrashed))
			next := keyring.NewKeys(k.Reopen(), "app")
			ref, key, err := next.NewKey(ctx, "id")
			require.NoError(t, err)
			got, err := next.Key(ctx, ref)
			require.NoError(t, err)
			require.Equal(t, key, got)
			require.Len(t, k.Items(), 1)
		}
	}
}

// The word in a file's header says which keyring has the key, also through a
// wrapper that passes it on.
func TestKeysSource(t *testing.T) {
	for want, k := range map[string][]keyring.Keyring{
		"kernel":  {keyring.Kernel(), keyringtest.NewKernel(), keyringtest.NewKernel().Reopen(), struct{ *keyringtest.Keyring }{keyringtest.NewKernel()}},
		"keyring": {keyring.System(), keyringtest.New(), keyringtest.NewWindows(), otherWord{keyringtest.New()}},
	} {
		for _, k := range k {
			require.Equal(t, want, keyring.NewKeys(k, "tokenkeep/app").Source())
		}
	}
}

// otherWord has a word that is neither.
type otherWord struct{ keyring.Keyring }

func (otherWord) KeySource() string { return "dpapi" }
