package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/discovery"
	"github.com/tokenkeep/tokenkeep/web/sealed"
)

// rowsOf is a store in memory: one for each key.
type rowsOf struct {
	mu   sync.Mutex
	row  map[string]persistence.Versioned
	down atomic.Bool // every call fails
}

func (s *rowsOf) at(key string) persistence.Versioned {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.row[key] == nil {
		s.row[key] = persistencetest.Intercept(persistence.NewMemory(), func(_ context.Context, _ string, call func() error) error {
			if s.down.Load() {
				return persistence.ErrUnavailable
			}
			return call()
		}).(persistence.Versioned)
	}
	return s.row[key]
}

func newKey(id string) sealed.Key {
	secret := make([]byte, 32)
	rand.Read(secret) //nolint:errcheck // never fails
	return sealed.NewKey(id, secret)
}

// server is one server of the app, in this process.
type server struct {
	*httptest.Server
	app  *app
	keys *sealed.Keys
}

type stores struct{ accounts, sessions rowsOf }

func newStores() *stores {
	return &stores{rowsOf{row: map[string]persistence.Versioned{}}, rowsOf{row: map[string]persistence.Versioned{}}}
}

const faultsClient = "22222222-3333-4444-8555-666666666666"

// newAuthority returns an authority whose refresh tokens are for one use.
func newAuthority(t *testing.T) (*entratest.Server, string) {
	t.Helper()
	secret := rand.Text()
	authority, err := entratest.Start(entratest.Options{Secrets: map[string]string{faultsClient: secret}})
	require.NoError(t, err)
	t.Cleanup(func() { authority.Close() })
	authority.SetLifetime(time.Minute, 0) // so short that every request renews it
	return authority, secret
}

// serve starts a server of the app.
func serve(t *testing.T, authority *entratest.Server, secret string, s *stores, key sealed.Key, older ...sealed.Key) *server {
	t.Helper()
	keys, err := sealed.New(key, older...)
	require.NoError(t, err)
	accounts, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
		return keys.Account(account, s.accounts.at(account)), nil
	}, persistence.WithTimeout(storeTimeout))
	require.NoError(t, err)
	credential, err := confidential.NewCredFromSecret(secret)
	require.NoError(t, err)
	client := authority.Client()
	client.Transport = discovery.NewTransport(client.Transport)
	a := &app{
		store: "memory", accounts: accounts,
		sessions: newSessions(false, func(key string) persistence.Versioned { return keys.Account("session "+key, s.sessions.at(key)) }),
		clientID: faultsClient, authority: entratest.Authority(entratest.Contoso), scopes: []string{"User.Read"},
		credential: credential, http: client,
	}
	mux := http.NewServeMux()
	a.routes(mux)
	mux.HandleFunc("GET /api", pretendAPI)
	up := httptest.NewServer(mux)
	t.Cleanup(up.Close)
	a.url, a.api = up.URL, up.URL+"/api"
	return &server{up, a, keys}
}

// visitor is a person whose browser reaches the pretend authority.
func visitor(t *testing.T, authority *entratest.Server) person {
	p := newPerson(t)
	p.c.Transport = authority.Client().Transport
	return p
}

func TestTheAuthoritysTroubleEndsNoSignIn(t *testing.T) {
	for name, failure := range map[string]entratest.Failure{
		"503":                  {Status: 503},
		"429":                  {Status: 429, RetryAfter: time.Second},
		"500":                  {Status: 500, Code: "server_error"},
		"closed":               {},
		"400 that passes":      {Status: 400, Code: "temporarily_unavailable"},
		"401 about the client": {Status: 401, Code: "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			authority, secret := newAuthority(t)
			one := serve(t, authority, secret, newStores(), newKey("1"))
			alice := visitor(t, authority)
			require.Contains(t, alice.signIn(one.URL, "alice@contoso.example"), "Hello, Alice Ames")
			authority.Fail(entratest.GrantRefreshToken, 8, failure) // MSAL and net/http try again
			res, err := alice.c.Get(one.URL)
			require.Contains(t, alice.read(res, err), "It is not lost")
			require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
			for range 8 { // until the failures are used up
				if strings.Contains(alice.get(one.URL), "Hello, Alice Ames") {
					return
				}
			}
			t.Fatal("the user is not signed in any more")
		})
	}
}

// The control: what does end a sign-in.
func TestARevokedTokenEndsTheSignIn(t *testing.T) {
	authority, secret := newAuthority(t)
	one := serve(t, authority, secret, newStores(), newKey("1"))
	alice := visitor(t, authority)
	require.Contains(t, alice.signIn(one.URL, "alice@contoso.example"), "Hello, Alice Ames")
	require.NoError(t, authority.Revoke("alice@contoso.example"))
	require.Contains(t, alice.get(one.URL), "Please sign in again.")
	require.Contains(t, alice.signIn(one.URL, "alice@contoso.example"), "Hello, Alice Ames")

	require.NoError(t, one.app.accounts.SignOut(t.Context(), entratest.Alice.HomeAccountID()))
	require.Contains(t, alice.get(one.URL), "Please sign in again.", "signed out elsewhere")
}

// A second tab, at another server, refreshes at the same moment. The authority
// takes each refresh token once, and refuses the slower of the two.
func TestASecondTabEndsNoSignIn(t *testing.T) {
	authority, secret := newAuthority(t)
	s, key := newStores(), newKey("1")
	one, two := serve(t, authority, secret, s, key), serve(t, authority, secret, s, key)
	alice := visitor(t, authority)
	require.Contains(t, alice.signIn(one.URL, "alice@contoso.example"), "Hello, Alice Ames")

	first := authority.Hold(entratest.GrantRefreshToken)
	pages := make(chan string, 1)
	go func() { pages <- alice.get(one.URL) }()
	<-first.Arrived() // the first tab has spent the refresh token, and does not know yet
	authority.Fail(entratest.GrantRefreshToken, 1, entratest.Failure{Status: 400, Code: "invalid_grant"})
	second := &refused{after: func() {
		first.Release()
		pages <- <-pages // it has stored the new one
	}}
	two.app.http = &http.Client{Transport: second.around(two.app.http.Transport)}
	require.Contains(t, alice.get(two.URL), "Hello, Alice Ames")
	require.Equal(t, 1, second.times)
	require.Contains(t, <-pages, "Hello, Alice Ames")
	require.Zero(t, authority.Reuses())
}

// refused calls after when the authority has refused a request, and before its
// client is told.
type refused struct {
	times int
	after func()
}

func (f *refused) around(inner http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		res, err := inner.RoundTrip(r)
		if err == nil && res.StatusCode == http.StatusBadRequest {
			f.times++
			f.after()
		}
		return res, err
	})
}

type roundTripper func(r *http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Keys roll from server to server, in the wrong order: the first server seals
// with a key that the second does not know yet. No account and no session is
// lost. The control deletes what does not open.
func TestNoAccountIsDeletedWhileKeysRoll(t *testing.T) {
	for name, deletes := range map[string]bool{"the example": false, "a program that deletes, the control": true} {
		t.Run(name, func(t *testing.T) {
			authority, secret := newAuthority(t)
			s, old, young := newStores(), newKey("old"), newKey("young")
			one, two := serve(t, authority, secret, s, old), serve(t, authority, secret, s, old)
			people := map[string]person{}
			for _, u := range []entratest.User{entratest.Alice, entratest.Bob, entratest.Carol} {
				p := visitor(t, authority)
				require.Contains(t, p.signIn(one.URL, u.Username), "Hello, "+u.Name)
				people[u.HomeAccountID()] = p
			}
			require.NoError(t, one.keys.Replace(young, old))
			for id, p := range people {
				require.Contains(t, p.get(one.URL), "Hello, ") // sealed with the new key now
				res, err := p.c.Get(two.URL)
				body := p.read(res, err)
				require.Equal(t, http.StatusServiceUnavailable, res.StatusCode, body)
				if _, err := two.app.tokenOnce(t.Context(), id); deletes && errors.Is(err, persistence.ErrKeyMissing) {
					require.NoError(t, two.app.accounts.SignOut(t.Context(), id))
				}
			}
			require.NoError(t, two.keys.Replace(young, old))
			deleted := 0
			for _, p := range people {
				if !strings.Contains(p.get(two.URL), "Hello, ") {
					deleted++
				}
			}
			if deletes {
				require.Equal(t, len(people), deleted)
			} else {
				require.Zero(t, deleted)
			}
		})
	}
}

// Strangers fill no store.
func TestStrangersMakeNoSessions(t *testing.T) {
	authority, secret := newAuthority(t)
	s := newStores()
	one := serve(t, authority, secret, s, newKey("1"))
	for range 20 {
		p := visitor(t, authority)
		p.get(one.URL)
		p.get(one.URL + "/sign-in")
		p.get(one.URL + "/signed-in?state=x&code=y")
		p.get(one.URL + "/?message=foreign")
	}
	require.Empty(t, s.sessions.row)
	alice := visitor(t, authority)
	alice.signIn(one.URL, "alice@contoso.example")
	require.Len(t, s.sessions.row, 1, "the control")
}

// Many tabs whose token has expired make one request for a new one.
func TestManyTabsMakeOneRequest(t *testing.T) {
	authority, secret := newAuthority(t)
	one := serve(t, authority, secret, newStores(), newKey("1"))
	alice := visitor(t, authority)
	alice.signIn(one.URL, "alice@contoso.example")
	before := authority.Requests(entratest.GrantRefreshToken)
	authority.SetLifetime(time.Hour, 0)
	const tabs = 64
	pages := make(chan string, tabs)
	for range tabs {
		go func() { pages <- alice.get(one.URL) }()
	}
	for range tabs {
		require.Contains(t, <-pages, "Hello, Alice Ames")
	}
	require.Equal(t, before+1, authority.Requests(entratest.GrantRefreshToken))

	// The control: two requests that do not take turns.
	authority.SetLifetime(time.Minute, 0)
	require.NoError(t, one.app.accounts.SignOut(t.Context(), entratest.Alice.HomeAccountID()))
	alice.get(one.URL) // which ends the session, too
	alice.signIn(one.URL, "alice@contoso.example")
	before = authority.Requests(entratest.GrantRefreshToken)
	held := authority.Hold(entratest.GrantRefreshToken)
	ended := make(chan error, 2)
	request := func() {
		_, err := one.app.tokenOnce(t.Context(), entratest.Alice.HomeAccountID())
		ended <- err
	}
	go request()
	<-held.Arrived()
	go request()
	for authority.Requests(entratest.GrantRefreshToken) < before+2 {
		runtime.Gosched()
	}
	held.Release()
	require.Error(t, errors.Join(<-ended, <-ended), "one of them spent a spent token")
}

// A sign-in while the accounts cannot be read keeps its tokens, and they are
// stored when that works again.
func TestSignInDuringAnOutage(t *testing.T) {
	authority, secret := newAuthority(t)
	s := newStores()
	one := serve(t, authority, secret, s, newKey("1"))
	s.accounts.down.Store(true)
	alice := visitor(t, authority)
	alice.signIn(one.URL, "alice@contoso.example")
	require.Equal(t, 1, authority.Requests(entratest.GrantAuthorizationCode))
	left, err := one.app.accounts.Flush(t.Context())
	require.Error(t, err)
	require.Equal(t, 1, left)
	s.accounts.down.Store(false)
	left, err = one.app.accounts.Flush(t.Context())
	require.NoError(t, err)
	require.Zero(t, left)
	require.Contains(t, alice.get(one.URL), "Hello, Alice Ames")
	require.Equal(t, 1, authority.Requests(entratest.GrantAuthorizationCode))
}

// Two sign-ins that are begun in two tabs both work.
func TestTwoTabsSignIn(t *testing.T) {
	authority, secret := newAuthority(t)
	one := serve(t, authority, secret, newStores(), newKey("1"))
	alice := visitor(t, authority)
	var forms []string
	for range 2 {
		res, err := alice.c.Get(one.URL + "/sign-in")
		alice.read(res, err)
		forms = append(forms, res.Request.URL.String())
	}
	for _, form := range forms {
		page := alice.read(alice.c.PostForm(form, url.Values{"username": {"alice@contoso.example"}, "answer": {"yes"}}))
		require.Contains(t, page, "Hello, Alice Ames")
	}
}

// One server asks for the authority's document once, not once a request.
func TestTheDocumentIsAskedForOnce(t *testing.T) {
	authority, secret := newAuthority(t)
	one := serve(t, authority, secret, newStores(), newKey("1"))
	alice := visitor(t, authority)
	alice.signIn(one.URL, "alice@contoso.example")
	for range 5 {
		require.Contains(t, alice.get(one.URL), "Hello, Alice Ames")
	}
	require.Equal(t, 1, authority.Requests("openid-configuration"))
}

// The sweep goes on until nothing is left, and stops at an error.
func TestSweepKeepsUp(t *testing.T) {
	left, calls := 3500, 0
	deleteExpired := func(_ context.Context, limit int) (int, error) {
		calls++
		n := min(left, limit)
		left -= n
		return n, nil
	}
	require.NoError(t, sweepTable(t.Context(), deleteExpired))
	require.Zero(t, left)
	require.Equal(t, 4, calls)
	down := errors.New("the database is down")
	require.ErrorIs(t, sweepTable(t.Context(), func(context.Context, int) (int, error) { return 0, down }), down)
}

func TestTheServerWaitsForNobodyForEver(t *testing.T) {
	s := newServer(http.NotFoundHandler())
	for name, d := range map[string]time.Duration{"header": s.ReadHeaderTimeout, "body": s.ReadTimeout, "answer": s.WriteTimeout, "idle": s.IdleTimeout} {
		require.NotZero(t, d, name)
		require.LessOrEqual(t, d, 2*time.Minute, name)
	}
	up := httptest.NewUnstartedServer(s.Handler)
	up.Config = s
	up.Start()
	defer up.Close()
	r, err := http.NewRequest(http.MethodGet, up.URL, nil)
	require.NoError(t, err)
	r.Header.Set("Cookie", "a="+strings.Repeat("x", 64<<10))
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, res.StatusCode)
}

func TestOAuthError(t *testing.T) {
	for body, want := range map[string]string{`{"error":"invalid_grant"}`: "invalid_grant", `<html>`: "", ``: "", `{"error":7}`: "", `[]`: ""} {
		err := fmt.Errorf("MSAL: %w", callError(400, body))
		require.Equal(t, want, oauthError(err))
		require.Equal(t, want, oauthError(err), "the answer can be read again")
		require.Empty(t, oauthError(callError(503, body)))
	}
	require.Empty(t, oauthError(io.EOF))
	require.Empty(t, oauthError(nil))
	require.False(t, mustSignIn(nil))
}

func callError(status int, body string) error {
	return msal.CallErr{Resp: &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, Err: errors.New("refused")}
}
