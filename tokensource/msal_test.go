package tokensource

// One cache for MSAL Go and for this package.

import (
	"context"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestSharedWithMSAL(t *testing.T) {
	w := newWorld(t, oauthserver.Options{Extra: map[string]any{"n": 1.5, "deep": map[string]any{"a": []any{"b"}}}})
	authority, err := entratest.Start(entratest.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { authority.Close() })
	client := func(c *persistence.Cache) public.Client {
		m, err := public.New("11111111-0000-4000-8000-000000000001", public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(authority.Client()), public.WithCache(c))
		require.NoError(t, err)
		return m
	}
	signIn := func(m public.Client, u entratest.User) public.AuthResult {
		code, err := m.AcquireTokenByDeviceCode(t.Context(), []string{"User.Read"})
		require.NoError(t, err)
		require.NoError(t, entratest.Approve(t.Context(), authority.Client(), code.Result.VerificationURL, code.Result.UserCode, u.Username))
		r, err := code.AuthenticationResult(t.Context())
		require.NoError(t, err)
		return r
	}
	shared := w.cache()
	msal, source := client(shared), w.source()
	source.cache = shared

	alice := signIn(msal, entratest.Alice)
	require.NoError(t, source.Save(t.Context(), w.newSignIn()))
	signIn(msal, entratest.Bob) // MSAL writes all of its cache anew
	saved := w.stored()
	require.NotEmpty(t, saved.text(refreshToken))
	require.JSONEq(t, `{"a":["b"]}`, string(saved["deep"]))

	w.advance(2 * time.Hour)
	token, err := source.Token()
	require.NoError(t, err)
	_, err = msal.AcquireTokenSilent(t.Context(), []string{"Mail.Read"}, public.WithSilentAccount(alice.Account)) // by its refresh token
	require.NoError(t, err)
	require.Equal(t, token.AccessToken, w.stored().text(accessToken))

	// Another program of each kind finds everything.
	accounts, err := client(w.cache()).Accounts(t.Context())
	require.NoError(t, err)
	require.Len(t, accounts, 2)
	again, err := w.source().Token()
	require.NoError(t, err)
	require.Equal(t, token.AccessToken, again.AccessToken)

	// So do sign-outs.
	require.NoError(t, msal.RemoveAccount(t.Context(), alice.Account))
	require.NotNil(t, w.stored())
	require.NoError(t, source.Delete(t.Context()))
	require.Nil(t, w.stored())
	accounts, err = client(w.cache()).Accounts(t.Context())
	require.NoError(t, err)
	require.Len(t, accounts, 1)
	require.Zero(t, authority.Reuses()+w.server.Reuses())
}

// A refresh between MSAL's reading and its writing is merged, and not undone.
func TestMSALWritesWhatItReadBefore(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	before, err := w.memory.Load(t.Context())
	require.NoError(t, err)
	token, err := w.source().Token()
	require.NoError(t, err)
	now, err := w.memory.Load(t.Context())
	require.NoError(t, err)

	ours, err := replace(before, "another", entry{accessToken: []byte(`"x"`)})
	require.NoError(t, err)
	merged, _, err := merge.Bytes(merge.BytesInput{Base: before, Ours: ours, Theirs: now, Now: w.clock.now()})
	require.NoError(t, err)
	e, err := find(merged, key)
	require.NoError(t, err)
	require.Equal(t, token.AccessToken, e.text(accessToken))
	e, err = find(merged, "another")
	require.NoError(t, err)
	require.Equal(t, "x", e.text(accessToken))

	// Where both changed the entry, the newer one stands, from either side.
	older := entry{accessToken: []byte(`"older"`), cachedAt: unix(w.clock.now().Add(-time.Hour))}
	ours, err = replace(before, key, older)
	require.NoError(t, err)
	for _, in := range []merge.BytesInput{{Base: before, Ours: ours, Theirs: now}, {Base: before, Ours: now, Theirs: ours}} {
		in.Now = w.clock.now().Add(time.Minute)
		merged, _, err := merge.Bytes(in)
		require.NoError(t, err)
		e, err := find(merged, key)
		require.NoError(t, err)
		require.Equal(t, token.AccessToken, e.text(accessToken))
	}
}

// The lock of a key is one that MSAL programs may know as well: Exclusive.
func TestExclusiveOfTheSameNameIsTheRefreshLock(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := w.cache().Exclusive(t.Context(), section+" "+key, func(context.Context) error {
		_, err := w.source().TokenContext(ctx)
		return err
	})
	require.ErrorIs(t, err, context.Canceled)
}
