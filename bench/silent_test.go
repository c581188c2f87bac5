//go:build linux

package bench

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
)

// AcquireTokenSilent of a real MSAL Go client, answered from its memory: what a
// program does before every request. The limit is a client whose memory was filled
// from the same bytes, and that asks nobody after that. (A client that has signed
// 1,000 accounts in itself is a sixth faster: its memory lies in another order.) Each
// account has three tokens of 2 KB.

var (
	account1    = param{"accounts=1", 1}
	account1000 = param{"accounts=1000", 1000}
)

var silentTopic = topic{settles: true, subjects: []subject{
	{"limit", []param{account1, account1000}, silentLimit},
	{"tokenkeep", []param{account1, account1000}, silentBy(openTokenkeep)},
	{"msext", []param{account1, account1000}, silentBy(openMsext)},
	{"99designs", []param{account1}, silentBy(open99designs)},
}}

const clientID = "11111111-0000-4000-8000-000000000001"

var scopes = []string{"User.Read"}

// signedIn is a number of accounts that have signed in.
type signedIn struct {
	authority *authority
	stored    []byte // as MSAL serializes them
	last      public.AuthResult
}

var population = map[int]*signedIn{}

// signIn returns n accounts; they stay signed in as long as the process runs.
func signIn(tb testing.TB, n int) *signedIn {
	tb.Helper()
	if p := population[n]; p != nil {
		return p
	}
	k := new(kept)
	p := &signedIn{authority: new(authority)}
	client := newMSAL(tb, p.authority, k)
	for i := range n {
		p.last = must(client.AcquireTokenByAuthCode(ctx, fmt.Sprint(i), "http://localhost", scopes))(tb)
	}
	p.stored = must(k.memory.Marshal())(tb)
	population[n] = p
	return p
}

func newMSAL(tb testing.TB, a *authority, store cache.ExportReplace) public.Client {
	tb.Helper()
	return must(public.New(clientID, public.WithAuthority("https://login.microsoftonline.com/"+tenant), public.WithHTTPClient(a), public.WithCache(store)))(tb)
}

// kept keeps hold of an MSAL client's memory, to serialize it once.
type kept struct{ memory cache.Marshaler }

func (k *kept) Replace(context.Context, cache.Unmarshaler, cache.ReplaceHints) error { return nil }

func (k *kept) Export(_ context.Context, m cache.Marshaler, _ cache.ExportHints) error {
	k.memory = m
	return nil
}

// given fills an MSAL client's memory once.
type given struct{ data []byte }

func (g *given) Replace(_ context.Context, u cache.Unmarshaler, _ cache.ReplaceHints) error {
	if g.data == nil {
		return nil
	}
	data := g.data
	g.data = nil
	return u.Unmarshal(data)
}

func (g *given) Export(context.Context, cache.Marshaler, cache.ExportHints) error { return nil }

func silentLimit(tb testing.TB, p param) task {
	s := signIn(tb, p.n)
	return silent(tb, s, newMSAL(tb, s.authority, &given{s.stored}))
}

func silentBy(open opener) func(testing.TB, param) task {
	return func(tb testing.TB, p param) task {
		s, dir := signIn(tb, p.n), tb.TempDir()
		ok(tb, open(tb, dir).Export(ctx, &memory{data: s.stored}, exportHints))
		client := newMSAL(tb, s.authority, open(tb, dir))
		return silent(tb, s, client)
	}
}

func silent(tb testing.TB, s *signedIn, client public.Client) task {
	var got public.AuthResult
	account := s.last.Account
	acquire := func() (err error) {
		got, err = client.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(account))
		return err
	}
	ok(tb, acquire()) // asks the authority for its addresses, once
	return task{
		run:    acquire,
		settle: acquire,
		check: func(run func() error) error {
			got = public.AuthResult{}
			requests := s.authority.requests
			if err := run(); err != nil {
				return err
			}
			if got.AccessToken != s.last.AccessToken || got.Account.HomeAccountID != account.HomeAccountID {
				return errors.New("not the token that this account was given")
			}
			if s.authority.requests != requests {
				return errors.New("the token did not come from the memory")
			}
			return nil
		},
	}
}

const tenant = "c0000000-0000-4000-8000-000000000001"

// authority answers MSAL's requests as Entra ID does, without a network. Whoever
// comes with the authorization code n is user n.
type authority struct{ requests int }

func (a *authority) CloseIdleConnections() {}

func (a *authority) Do(r *http.Request) (*http.Response, error) {
	a.requests++
	const host = "https://login.microsoftonline.com/"
	var answer any
	switch {
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		answer = map[string]any{
			"tenant_discovery_endpoint": host + tenant + "/v2.0/.well-known/openid-configuration",
			"metadata": []any{map[string]any{"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.windows.net",
				"aliases": []string{"login.microsoftonline.com", "login.windows.net"}}},
		}
	case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
		answer = map[string]string{"issuer": host + tenant + "/v2.0", "authorization_endpoint": host + "authorize", "token_endpoint": host + "token"}
	case r.URL.Path == "/token":
		if err := r.ParseForm(); err != nil {
			return nil, err
		}
		if r.PostForm.Get("grant_type") != "authorization_code" {
			return nil, errors.New("only signing in was expected")
		}
		user := fmt.Sprintf("%012s", r.PostForm.Get("code"))
		id := "a0000000-0000-4000-8000-" + user
		answer = map[string]any{
			"token_type": "Bearer", "scope": strings.Join(scopes, " "), "expires_in": 86400, "ext_expires_in": 86400,
			"access_token": secret("access", user), "refresh_token": secret("refresh", user),
			"id_token": "e30." + b64JSON(map[string]string{"oid": id, "tid": tenant, "sub": user, "preferred_username": user + "@contoso.example",
				"name": strings.Repeat("N", 1400)}) + ".c2ln",
			"client_info": b64JSON(map[string]string{"uid": id, "utid": tenant}),
		}
	default:
		return nil, fmt.Errorf("nobody expects a request of %s", r.URL)
	}
	body, err := json.Marshal(answer)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body))), Request: r}, err
}

func secret(kind, user string) string { return kind + user + strings.Repeat("s", 2000) }

func b64JSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}
