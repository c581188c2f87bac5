package azcredential_test

import (
	"context"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
)

// Two things at a time.

type answer struct {
	token azcore.AccessToken
	err   error
}

// ask calls GetToken, and is at the authority when it returns.
func (f *fixture) ask(ctx context.Context, c azcore.TokenCredential, o policy.TokenRequestOptions) (hold *entratest.Hold, answers chan answer) {
	f.t.Helper()
	hold, answers = f.Hold(entratest.GrantRefreshToken), make(chan answer, 1)
	go func() {
		token, err := c.GetToken(ctx, o)
		answers <- answer{token, err}
	}()
	select {
	case <-hold.Arrived():
	case a := <-answers:
		f.t.Fatalf("GetToken did not ask the authority: %v", a.err)
	}
	return hold, answers
}

// The user signs out while a token is asked for. Who asked gets it, and nothing of it
// is stored. The control does not sign out.
func TestSignOutDuringGetToken(t *testing.T) {
	for kind, o := range map[string]policy.TokenRequestOptions{"CAE": cae, "no CAE": noCAE} {
		for name, signsOut := range map[string]bool{"signed out": true, "not signed out, the control": false} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				f := start(t, entratest.Options{})
				c := f.credential(silently)
				_, err := c.Authenticate(t.Context(), o)
				require.NoError(t, err)
				f.expire()
				hold, answers := f.ask(t.Context(), c, o)
				if signsOut {
					require.NoError(t, c.SignOut(t.Context()))
				}
				hold.Release()
				a := <-answers
				require.NoError(t, a.err)
				data, err := f.cache.Load(t.Context())
				require.NoError(t, err)
				again, err := c.GetToken(t.Context(), o)
				if !signsOut {
					require.Contains(t, string(data), a.token.Token)
					require.NoError(t, err)
					require.Equal(t, a.token.Token, again.Token)
					return
				}
				for _, secret := range f.Issued() {
					require.NotContains(t, string(data), secret)
				}
				requireSignIn(t, err)
			})
		}
	}
}

// A caller that gives up ends it for nobody else. The request goes on, and who waits
// gets its answer: a second one with that refresh token would sign the user out. The
// control is MSAL with the caller's own context.
func TestCancelledCallerEndsItForNobodyElse(t *testing.T) {
	f := start(t, entratest.Options{})
	c := f.credential(silently)
	_, err := c.Authenticate(t.Context(), cae)
	require.NoError(t, err)
	f.expire()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hold, first := f.ask(ctx, c, cae)
	defer hold.Release()
	second := make(chan answer, 1)
	go func() {
		token, err := c.GetToken(t.Context(), cae)
		second <- answer{token, err}
	}()
	cancel()
	require.ErrorIs(t, (<-first).err, context.Canceled)
	hold.Release()
	require.NoError(t, (<-second).err)
	require.Equal(t, 1, f.Requests(entratest.GrantRefreshToken))
	require.Zero(t, f.Reuses())

	t.Run("control", func(t *testing.T) {
		f := start(t, entratest.Options{})
		c := f.credential(silently)
		account, err := c.Authenticate(t.Context(), noCAE)
		require.NoError(t, err)
		f.expire()
		client, err := public.New(appID, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(f.Client()), public.WithCache(f.cache))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		hold := f.Hold(entratest.GrantRefreshToken)
		defer hold.Release()
		ended := make(chan error, 1)
		go func() {
			of := public.Account{HomeAccountID: account.HomeAccountID, Environment: account.Environment, Realm: entratest.Contoso}
			_, err := client.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(of))
			ended <- err
		}()
		<-hold.Arrived()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		_, err = c.GetToken(t.Context(), noCAE)
		requireSignIn(t, err)
	})
}

// The answer to a claims challenge is a request of its own, also where another one is
// under way, and stays.
func TestClaimsDuringGetToken(t *testing.T) {
	f := start(t, entratest.Options{})
	c := f.credential(silently)
	_, err := c.Authenticate(t.Context(), cae)
	require.NoError(t, err)
	f.expire()
	hold, first := f.ask(t.Context(), c, cae)
	challenged := cae
	challenged.Claims = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
	second := make(chan answer, 1)
	go func() {
		token, err := c.GetToken(t.Context(), challenged)
		second <- answer{token, err}
	}()
	hold.Release()
	a, b := <-first, <-second
	require.NoError(t, a.err)
	require.NoError(t, b.err)
	require.NotEqual(t, a.token.Token, b.token.Token)
	require.Equal(t, 2, f.Requests(entratest.GrantRefreshToken))
	require.Zero(t, f.Reuses())
	again, err := c.GetToken(t.Context(), cae)
	require.NoError(t, err)
	require.Equal(t, b.token.Token, again.Token)
}
