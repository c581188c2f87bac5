package scssession_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/alexedwards/scs/v2"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/session/scssession"
)

// inSession is a cache that is always asked in one session.
type inSession struct {
	persistence.Versioned
	session context.Context
}

// both has one context's end and another's values.
type both struct {
	context.Context
	values context.Context
}

func (b both) Value(key any) any { return b.values.Value(key) }

func (s inSession) Describe() persistence.Description { return persistence.Describe(s.Versioned) }
func (s inSession) Load(ctx context.Context) ([]byte, error) {
	return s.Versioned.Load(both{ctx, s.session})
}
func (s inSession) Save(ctx context.Context, data []byte) error {
	return s.Versioned.Save(both{ctx, s.session}, data)
}
func (s inSession) Delete(ctx context.Context) error {
	return s.Versioned.Delete(both{ctx, s.session})
}
func (s inSession) Revision(ctx context.Context) (string, error) {
	return s.Versioned.Revision(both{ctx, s.session})
}
func (s inSession) LoadRevision(ctx context.Context) ([]byte, string, error) {
	return s.Versioned.LoadRevision(both{ctx, s.session})
}
func (s inSession) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	return s.Versioned.SaveIf(both{ctx, s.session}, data, rev)
}
func (s inSession) DeleteIf(ctx context.Context, rev string) error {
	return s.Versioned.DeleteIf(both{ctx, s.session}, rev)
}

func TestConformance(t *testing.T) {
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		manager := scs.New()
		ctx, err := manager.Load(context.Background(), "")
		require.NoError(t, err)
		s := inSession{scssession.Account(manager, "alice", nil), ctx}
		return func() (persistence.Persistence, error) { return s, nil }
	}, nil)
}

// TestEmptyDataSurvivesTheCodec: it is data.
func TestEmptyDataSurvivesTheCodec(t *testing.T) {
	manager := scs.New()
	ctx, err := manager.Load(t.Context(), "")
	require.NoError(t, err)
	require.NoError(t, scssession.Account(manager, "alice", nil).Save(ctx, nil))
	token, _, err := manager.Commit(ctx)
	require.NoError(t, err)
	ctx, err = manager.Load(t.Context(), token)
	require.NoError(t, err)
	data, err := scssession.Account(manager, "alice", nil).Load(ctx)
	require.NoError(t, err)
	require.Empty(t, data)
	_, err = scssession.Account(manager, "bob", nil).Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
	manager.Put(ctx, "tokenkeep:carol", "text")
	_, err = scssession.Account(manager, "carol", nil).Load(ctx)
	require.ErrorIs(t, err, persistence.ErrCorrupt)
}

func TestNoSession(t *testing.T) {
	a := scssession.Account(scs.New(), "alice", nil)
	_, err := a.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "LoadAndSave")
	require.ErrorIs(t, a.Save(t.Context(), nil), persistence.ErrUnavailable)
}

// TestMSAL signs two browsers in, and asks for tokens in later requests.
func TestMSAL(t *testing.T) {
	const clientID, secret, redirect = "22222222-0000-4000-8000-000000000001", "planted-client-secret", "http://localhost:1/"
	s, err := entratest.Start(entratest.Options{Secrets: map[string]string{clientID: secret}})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	sessions := scs.New()
	cache, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
		return scssession.Account(sessions, account, nil), nil
	}, persistence.WithStrict())
	require.NoError(t, err)
	cred, err := confidential.NewCredFromSecret(secret)
	require.NoError(t, err)
	handle := func(work func(c confidential.Client, r *http.Request) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c, err := confidential.New(entratest.Authority(entratest.Contoso), clientID, cred, confidential.WithHTTPClient(s.Client()),
				confidential.WithCache(cache), confidential.WithInstanceDiscovery(false))
			if err == nil {
				err = work(c, r)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/sign-in", handle(func(c confidential.Client, r *http.Request) error {
		to, err := c.AuthCodeURL(r.Context(), clientID, redirect, []string{"User.Read"})
		if err != nil {
			return err
		}
		code, err := entratest.Authorize(r.Context(), s.Client(), to, r.FormValue("user"))
		if err != nil {
			return err
		}
		_, err = c.AcquireTokenByAuthCode(r.Context(), code, redirect, []string{"User.Read"})
		return err
	}))
	mux.HandleFunc("/token", handle(func(c confidential.Client, r *http.Request) error {
		a, err := c.Account(r.Context(), r.FormValue("account"))
		if err != nil {
			return err
		}
		_, err = c.AcquireTokenSilent(r.Context(), []string{"User.Read", r.FormValue("scope")}, confidential.WithSilentAccount(a))
		return err
	}))
	mux.HandleFunc("/sign-out", handle(func(_ confidential.Client, r *http.Request) error {
		return cache.SignOut(r.Context(), r.FormValue("account"))
	}))
	server := httptest.NewServer(sessions.LoadAndSave(mux))
	t.Cleanup(server.Close)

	browser := func() func(path string) int {
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		c := &http.Client{Jar: jar}
		return func(path string) int {
			res, err := c.Get(server.URL + path)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			return res.StatusCode
		}
	}
	alice, bob := browser(), browser()
	require.Equal(t, 200, alice("/sign-in?user="+entratest.Alice.Username))
	require.Equal(t, 200, bob("/sign-in?user="+entratest.Bob.Username))
	for i := range 3 {
		require.Equal(t, 200, alice(fmt.Sprintf("/token?account=%s&scope=s%d", entratest.Alice.HomeAccountID(), i)))
	}
	require.Equal(t, 500, bob("/token?scope=s&account="+entratest.Alice.HomeAccountID()), "another's session has not her tokens")
	require.Equal(t, 200, alice("/sign-out?account="+entratest.Alice.HomeAccountID()))
	require.Equal(t, 500, alice("/token?scope=s&account="+entratest.Alice.HomeAccountID()))
	require.Equal(t, 200, bob("/token?account="+entratest.Bob.HomeAccountID()+"&scope=s"))
}
