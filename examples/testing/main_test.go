package main

import (
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// start starts a test authority and returns it with a machine that reaches it.
func start(t *testing.T, k *keyringtest.Keyring) (*entratest.Server, machine) {
	t.Helper()
	s, err := entratest.Start(entratest.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, machine{dir: t.TempDir(), keyring: k, options: []public.Option{
		public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client())}}
}

// open opens the program's cache, as greet does.
func open(t *testing.T, m machine) *persistence.Cache {
	t.Helper()
	c, err := tokenkeep.Open(t.Context(), tokenkeep.Config{Name: "contoso-example-testing", Dir: m.dir, Keyring: m.keyring})
	require.NoError(t, err)
	return c
}

func requireGreeting(t *testing.T, want string, m machine) {
	t.Helper()
	text, err := greet(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, want, text)
}

func TestGreet(t *testing.T) {
	s, m := start(t, keyringtest.New())
	requireGreeting(t, "Nobody is signed in.", m)

	_, err := s.SignIn(t.Context(), open(t, m), clientID, entratest.Alice, scopes...)
	require.NoError(t, err)
	requireGreeting(t, "Hello, alice@contoso.example.", m)
	require.Zero(t, s.Requests(entratest.GrantRefreshToken))

	// An hour later: the access token has expired, and MSAL refreshes it.
	require.NoError(t, open(t, m).Update(t.Context(), entratest.Expire))
	requireGreeting(t, "Hello, alice@contoso.example.", m)
	require.Equal(t, 1, s.Requests(entratest.GrantRefreshToken))

	// The authority cannot serve now: that is no reason to sign in again.
	s.Fail(entratest.GrantRefreshToken, 1000, entratest.Failure{Status: 503})
	require.NoError(t, open(t, m).Update(t.Context(), entratest.Expire))
	_, err = greet(t.Context(), m)
	require.Error(t, err)
	s.Fail(entratest.GrantRefreshToken, 0, entratest.Failure{})

	// An administrator has revoked Alice's sign-ins.
	require.NoError(t, s.Revoke(entratest.Alice.Username))
	require.NoError(t, open(t, m).Update(t.Context(), entratest.Expire))
	requireGreeting(t, "alice@contoso.example must sign in again.", m)
}

// A session over SSH often finds the keyring locked.
func TestGreetWithALockedKeyring(t *testing.T) {
	k := keyringtest.New()
	s, m := start(t, k)
	_, err := s.SignIn(t.Context(), open(t, m), clientID, entratest.Alice, scopes...)
	require.NoError(t, err)

	k.SetLocked(true)
	requireGreeting(t, "Unlock the keyring first.", m)

	k.SetLocked(false)
	requireGreeting(t, "Hello, alice@contoso.example.", m)

	// The user has reset the keyring: the key is gone.
	k.Clear()
	requireGreeting(t, "Nobody is signed in.", m)
}

// A container has no keyring. The error says what is missing and what helps.
func TestGreetWithoutAKeyring(t *testing.T) {
	_, m := start(t, keyringtest.NewAbsent())
	_, err := greet(t.Context(), m)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
}

// The keyrings of other systems take only small items.
func TestGreetOnEverySystem(t *testing.T) {
	for name, k := range map[string]*keyringtest.Keyring{"Windows": keyringtest.NewWindows(), "macOS": keyringtest.NewMacOS(), "kernel": keyringtest.NewKernel()} {
		t.Run(name, func(t *testing.T) {
			s, m := start(t, k)
			_, err := s.SignIn(t.Context(), open(t, m), clientID, entratest.Alice, scopes...)
			require.NoError(t, err)
			requireGreeting(t, "Hello, alice@contoso.example.", m)
		})
	}
}
