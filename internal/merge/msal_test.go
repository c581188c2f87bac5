package merge

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// This file merges what real MSAL Go clients write.

const (
	tenant   = "11111111-1111-1111-1111-111111111111"
	clientID = "33333333-3333-3333-3333-333333333333"
)

// A provider is an identity provider with refresh tokens that rotate: each can
// be spent once.
type provider struct {
	issued int
	live   map[string]string // refresh token to user
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	base := "https://" + env + "/" + tenant
	answer := map[string]any{}
	status := 200
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/discovery/instance"):
		answer["tenant_discovery_endpoint"] = base + "/v2.0/.well-known/openid-configuration"
		answer["metadata"] = []any{map[string]any{"preferred_network": env, "preferred_cache": env, "aliases": []string{env}}}
	case strings.HasSuffix(path, "/openid-configuration"):
		answer["issuer"] = base + "/v2.0"
		answer["authorization_endpoint"] = base + "/oauth2/v2.0/authorize"
		answer["token_endpoint"] = base + "/oauth2/v2.0/token"
	default:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, err
		}
		if answer = p.token(form); answer == nil {
			status, answer = 400, map[string]any{"error": "invalid_grant"}
		}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(b)), Request: r}, nil
}

// token answers a token request: an authorization code or a password names the
// user.
func (p *provider) token(form url.Values) map[string]any {
	user := ""
	switch form.Get("grant_type") {
	case "authorization_code":
		user = form.Get("code")
	case "refresh_token":
		var ok bool
		if user, ok = p.live[form.Get("refresh_token")]; !ok {
			return nil
		}
		delete(p.live, form.Get("refresh_token"))
	}
	p.issued++
	m := map[string]any{"token_type": "Bearer", "expires_in": 3600 + p.issued, "access_token": fmt.Sprint("at", p.issued),
		"scope": strings.Join(strings.Fields(strings.NewReplacer("openid", "", "profile", "", "offline_access", "").Replace(form.Get("scope"))), " ")}
	if user != "" {
		rt := fmt.Sprint("rt", p.issued)
		p.live[rt] = user
		m["refresh_token"] = rt
		m["client_info"] = b64(map[string]any{"uid": user, "utid": tenant})
		m["id_token"] = b64(map[string]any{"alg": "none"}) + "." + b64(map[string]any{"tid": tenant, "oid": user, "sub": user,
			"preferred_username": user + "@example.com", "iss": "https://" + env, "aud": clientID, "exp": 4102444800}) + ".x"
	}
	return m
}

func b64(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// A shelf is what processes share. A seat is one process's place at it: it
// merges as the Cache does. before, if set, runs once, between a client's last
// Replace and its Export: there another process comes in.
type shelf struct{ stored []byte }

type seat struct {
	t      *testing.T
	shelf  *shelf
	base   []byte
	before func()
	exact  bool // overwrite instead of merging
}

func (s *seat) Replace(_ context.Context, u cache.Unmarshaler, _ cache.ReplaceHints) error {
	data := s.shelf.stored
	if data == nil {
		data = []byte(`{}`)
	}
	s.base = data
	return u.Unmarshal(data)
}

func (s *seat) Export(_ context.Context, m cache.Marshaler, _ cache.ExportHints) error {
	if f := s.before; f != nil {
		s.before = nil
		f()
	}
	ours, err := m.Marshal()
	if err != nil {
		return err
	}
	if s.exact {
		s.shelf.stored = ours
		return nil
	}
	s.shelf.stored = mustMergeOnce(s.t, BytesInput{Base: s.base, Ours: ours, Theirs: s.shelf.stored, Now: time.Now()})
	s.base = ours
	return nil
}

type msal struct {
	*seat
	public.Client
}

func (p *provider) public(t *testing.T, sh *shelf) *msal {
	s := &seat{t: t, shelf: sh}
	c, err := public.New(clientID, public.WithAuthority("https://"+env+"/"+tenant), public.WithHTTPClient(&http.Client{Transport: p}), public.WithCache(s))
	require.NoError(t, err)
	return &msal{s, c}
}

func (m *msal) signIn(user string) {
	_, err := m.AcquireTokenByAuthCode(context.Background(), user, "http://localhost", []string{"user.read"})
	require.NoError(m.t, err)
}

func (m *msal) account(user string) public.Account {
	as, err := m.Accounts(context.Background())
	require.NoError(m.t, err)
	for _, a := range as {
		if a.HomeAccountID == user+"."+tenant {
			return a
		}
	}
	return public.Account{}
}

// silent gets a token, from the cache or with the refresh token.
func (m *msal) silent(user, scope string) (string, error) {
	r, err := m.AcquireTokenSilent(context.Background(), []string{scope}, public.WithSilentAccount(m.account(user)))
	return r.AccessToken, err
}

func (m *msal) mustSilent(user, scope string) string {
	token, err := m.silent(user, scope)
	require.NoError(m.t, err)
	return token
}

func (m *msal) signOut(user string) {
	require.NoError(m.t, m.RemoveAccount(context.Background(), m.account(user)))
}

func newProvider() *provider { return &provider{live: map[string]string{}} }

// Two processes each get a token for another scope at the same time. Both
// tokens survive, and what is stored is the refresh token that still works.
func TestMSALRefreshAtOnce(t *testing.T) {
	for _, exact := range []bool{false, true} {
		p, sh := newProvider(), &shelf{}
		one, two := p.public(t, sh), p.public(t, sh)
		one.exact, two.exact = exact, exact
		one.signIn("ann")
		one.mustSilent("ann", "mail.read")
		one.before = func() {
			one.exact = exact
			// The other process has ann sign in again: the refresh token that it
			// finds stored is spent.
			two.signIn("ann")
			two.mustSilent("ann", "files.read")
		}
		got := one.mustSilent("ann", "calendars.read")
		fresh := p.public(t, sh)
		issued := p.issued
		calendars, err := fresh.silent("ann", "calendars.read")
		require.NoError(t, err)
		require.Equal(t, got, calendars)
		mail := fresh.mustSilent("ann", "mail.read")
		require.NotEmpty(t, mail)
		_, err = fresh.silent("ann", "files.read")
		require.NoError(t, err)
		if exact {
			require.NotEqual(t, issued, p.issued, "control: the last writer wins, and a token is lost")
			continue
		}
		require.Equal(t, issued, p.issued, "all from the cache")
		require.Contains(t, string(sh.stored), fmt.Sprintf(`"rt%d"`, issued), "the newest refresh token")
		_, err = fresh.silent("ann", "chat.read")
		require.NoError(t, err)
	}
}

// Two users sign in at once, in two processes.
func TestMSALSignInAtOnce(t *testing.T) {
	p, sh := newProvider(), &shelf{}
	one, two := p.public(t, sh), p.public(t, sh)
	one.before = func() { two.signIn("bob") }
	one.signIn("ann")
	fresh := p.public(t, sh)
	for _, user := range []string{"ann", "bob"} {
		require.False(t, fresh.account(user).IsZero(), user)
		fresh.mustSilent(user, "user.read")
		fresh.mustSilent(user, "mail.read")
	}
	as := parse(sh.stored).Accounts()
	require.Equal(t, []tokencache.Account{named("ann."+tenant, env), named("bob."+tenant, env)}, as)
}

// A sign-out meets a refresh that is in flight; and the reverse.
func TestMSALSignOutSticks(t *testing.T) {
	for _, c := range []struct {
		says string
		run  func(one, two *msal)
	}{
		{"a refresh is in flight at a sign-out", func(one, two *msal) {
			one.before = func() { two.signOut("ann") }
			one.mustSilent("ann", "mail.read")
		}},
		{"a sign-out is in flight at a refresh", func(one, two *msal) {
			one.before = func() { two.mustSilent("ann", "mail.read") }
			one.signOut("ann")
		}},
	} {
		t.Run(c.says, func(t *testing.T) {
			p, sh := newProvider(), &shelf{}
			one, two := p.public(t, sh), p.public(t, sh)
			one.signIn("ann")
			one.signIn("bob")
			c.run(one, two)
			fresh := p.public(t, sh)
			require.True(t, fresh.account("ann").IsZero())
			require.NotContains(t, string(sh.stored), "ann")
			fresh.mustSilent("bob", "mail.read")
			fresh.signIn("ann")
			fresh.mustSilent("ann", "mail.read")
		})
	}
}

// A confidential client's own tokens have no account, and no sign-out touches
// them.
func TestMSALConfidential(t *testing.T) {
	p, sh := newProvider(), &shelf{}
	cred, err := confidential.NewCredFromSecret("s")
	require.NoError(t, err)
	s := &seat{t: t, shelf: sh}
	conf, err := confidential.New("https://"+env+"/"+tenant, clientID, cred, confidential.WithHTTPClient(&http.Client{Transport: p}), confidential.WithCache(s))
	require.NoError(t, err)
	one := p.public(t, sh)
	one.signIn("ann")
	s.before = func() { one.signOut("ann") }
	r, err := conf.AcquireTokenByCredential(context.Background(), []string{"graph/.default"})
	require.NoError(t, err)
	as := parse(sh.stored).Accounts()
	require.Empty(t, as)
	one.before = nil
	again, err := conf.AcquireTokenByCredential(context.Background(), []string{"graph/.default"})
	require.NoError(t, err)
	require.Equal(t, r.AccessToken, again.AccessToken)
}

// rewritten is a cache as MSAL Go writes it after it has read it.
func rewritten(t *testing.T, data string) []byte {
	t.Helper()
	p, sh := newProvider(), &shelf{stored: []byte(data)}
	m := p.public(t, sh)
	m.exact = true
	// The removal of an account that is not there changes nothing.
	require.NoError(t, m.RemoveAccount(context.Background(), public.Account{HomeAccountID: "nobody", Environment: env}))
	return sh.stored
}

// What MSAL Go does to a cache by reading and writing it is no change.
func TestMSALRewritesAreNoChange(t *testing.T) {
	old := `{
		"AccessToken": {"Uid.Utid-login-AccessToken-app-Contoso-s1 s2": {"home_account_id": "Uid.Utid", "environment": "login", "credential_type": "AccessToken",
			"client_id": "app", "secret": "<\u003c\/>&é\u00e9\u2028", "realm": "Contoso", "target": "s1 s2", "cached_at": 1000, "expires_on": "4600", "extended_expires_on": 4600,
			"later": {"a": [1, 2.50, null, {"b": ""}], "c": true}, "none": null, "token_type": ""}},
		"RefreshToken": {"uid.utid-login-refreshtoken-app--": {"home_account_id": "uid.utid", "secret": "r", "last_modification_time": "17", "target": null}},
		"IdToken": {},
		"Account": {"uid.utid-login-contoso": {"home_account_id": "uid.utid", "environment": "login", "username": "John Doe \"q\"", "local_account_id": ""}},
		"AppMetadata": {"AppMetadata-login-app": {"client_id": "app", "environment": "login", "family_id": null}},
		"Later": {"K": {"x": 1}, "l": [ 1 ]}, "Version": 3, "Nothing": null
	}`
	for range 20 {
		got := rewritten(t, old)
		require.NotEqual(t, old, string(got))
		require.True(t, Equal(got, []byte(old)), "%s", got)
		require.True(t, Equal(rewritten(t, string(got)), got))
		// So another process's change is all that there is.
		theirs := strings.Replace(old, `"secret": "r"`, `"secret": "r2"`, 1)
		require.Equal(t, theirs, string(mustMergeOnce(t, BytesInput{Base: []byte(old), Ours: got, Theirs: []byte(theirs)})))
		// What a merge writes is what MSAL reads.
		ours := bytes.Replace(got, []byte(`"expires_on":"4600"`), []byte(`"expires_on":"4601"`), 1)
		merged := mustMergeOnce(t, BytesInput{Base: []byte(old), Ours: ours, Theirs: []byte(theirs)})
		require.True(t, Equal(rewritten(t, string(merged)), merged))
		require.Contains(t, string(merged), `"r2"`)
		require.Contains(t, string(merged), `"4601"`)
	}
}

// MSAL Go 1.0 wrote keys in mixed case. When a newer one reads such an entry, it
// renames the key.
func TestMSALUpgradesKeys(t *testing.T) {
	p, sh := newProvider(), &shelf{}
	one := p.public(t, sh)
	one.signIn("ann")
	require.Contains(t, string(sh.stored), "-refreshtoken-")
	mixed := strings.NewReplacer("-refreshtoken-", "-RefreshToken-", "-accesstoken-", "-AccessToken-", "-idtoken-", "-IdToken-", `"appmetadata-`, `"AppMetaData-`).Replace(string(sh.stored))
	require.True(t, Equal(sh.stored, []byte(mixed)))
	sh.stored = []byte(mixed)
	two := p.public(t, sh)
	one.before = func() {
		two.signIn("ann")
		two.mustSilent("ann", "files.read")
	}
	one.mustSilent("ann", "mail.read")
	var c map[string]map[string]struct{ Secret string }
	require.NoError(t, json.Unmarshal(sh.stored, &c))
	require.Len(t, c[refreshToken], 1)
	require.Len(t, c[accessToken], 3)
	require.Len(t, c[idToken], 1)
	require.Len(t, c[appMetadata], 1)
	fresh := p.public(t, sh)
	fresh.mustSilent("ann", "chat.read")
}

// MSAL Go marshals an entry without fields as broken JSON.
func TestMSALBroken(t *testing.T) {
	stored := `{"AccessToken":{"k":{}},"RefreshToken":{"l":{"secret":"s"}}}`
	broken := rewritten(t, stored)
	require.False(t, json.Valid(broken), "%s", broken)
	_, _, err := Bytes(BytesInput{Base: []byte(stored), Ours: broken, Theirs: []byte(stored)})
	require.ErrorIs(t, err, ErrOurs)
}
