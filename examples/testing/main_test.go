package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// signedIn stores a cache in which somebody is signed in.
func signedIn(t *testing.T, dir string, k keyring.Keyring) {
	t.Helper()
	tokens, err := tokenkeep.Open(t.Context(), tokenkeep.Config{Name: "contoso-example-testing", Dir: dir, Keyring: k})
	require.NoError(t, err)
	require.NoError(t, tokens.Update(t.Context(), func([]byte) ([]byte, error) {
		return []byte(`{"Account":{"alice":{"home_account_id":"a.t","environment":"login.microsoftonline.com","realm":"t",` +
			`"local_account_id":"a","username":"alice@contoso.example","authority_type":"MSSTS"}}}`), nil
	}))
}

func TestGreet(t *testing.T) {
	dir, k := t.TempDir(), keyringtest.New()
	text, err := greet(t.Context(), dir, k)
	require.NoError(t, err)
	require.Equal(t, "Hello, whoever you are.", text)

	signedIn(t, dir, k)
	text, err = greet(t.Context(), dir, k)
	require.NoError(t, err)
	require.Equal(t, "Hello, alice@contoso.example.", text)

	// What an SSH session finds.
	k.SetLocked(true)
	text, err = greet(t.Context(), dir, k)
	require.NoError(t, err)
	require.Equal(t, "Unlock the keyring first.", text)

	// The keyring was made anew: the key is gone, and the user signs in again.
	k.SetLocked(false)
	k.Clear()
	text, err = greet(t.Context(), dir, k)
	require.NoError(t, err)
	require.Equal(t, "Hello, whoever you are.", text)
}

// What a container finds. The error says what is missing and what helps.
func TestGreetWithoutAKeyring(t *testing.T) {
	_, err := greet(t.Context(), t.TempDir(), keyringtest.NewAbsent())
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "there is no safe place to keep the tokens")
}

// The same on the systems whose keyrings are small.
func TestGreetOnEverySystem(t *testing.T) {
	for name, k := range map[string]*keyringtest.Keyring{"Windows": keyringtest.NewWindows(), "macOS": keyringtest.NewMacOS(), "kernel": keyringtest.NewKernel()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			signedIn(t, dir, k)
			text, err := greet(t.Context(), dir, k)
			require.NoError(t, err)
			require.Equal(t, "Hello, alice@contoso.example.", text)
		})
	}
}
