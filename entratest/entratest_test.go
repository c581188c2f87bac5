package entratest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
)

const (
	appID     = "11111111-0000-4000-8000-000000000001"
	webID     = "22222222-0000-4000-8000-000000000002"
	webSecret = "planted-client-secret"
)

var (
	scopes   = []string{"User.Read"}
	mailRead = []string{"Mail.Read"}
)

func TestMain(m *testing.M) {
	if endpoint := os.Getenv("ENTRA_TEST_ENDPOINT"); endpoint != "" {
		os.Exit(child(endpoint))
	}
	os.Exit(m.Run())
}

func start(t *testing.T, o entratest.Options) *entratest.Server {
	t.Helper()
	s, err := entratest.Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func newPublic(t *testing.T, s *entratest.Server, opts ...public.Option) public.Client {
	t.Helper()
	opts = append([]public.Option{public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client())}, opts...)
	c, err := public.New(appID, opts...)
	require.NoError(t, err)
	return c
}

func newConfidential(t *testing.T, s *entratest.Server, secret string) confidential.Client {
	t.Helper()
	cred, err := confidential.NewCredFromSecret(secret)
	require.NoError(t, err)
	c, err := confidential.New(entratest.Authority(entratest.Contoso), webID, cred, confidential.WithHTTPClient(s.Client()))
	require.NoError(t, err)
	return c
}

func signIn(t *testing.T, s *entratest.Server, c public.Client, u entratest.User) public.AuthResult {
	t.Helper()
	dc, err := c.AcquireTokenByDeviceCode(t.Context(), scopes)
	require.NoError(t, err)
	require.NoError(t, entratest.Approve(t.Context(), s.Client(), dc.Result.VerificationURL, dc.Result.UserCode, u.Username))
	r, err := dc.AuthenticationResult(t.Context())
	require.NoError(t, err)
	return r
}

// oauthError is the OAuth error of a failed MSAL call.
func oauthError(t *testing.T, err error) string {
	t.Helper()
	require.Error(t, err)
	var call msalerrors.CallErr
	require.True(t, errors.As(err, &call), "%v", err)
	var b struct {
		Error string `json:"error"`
	}
	body, readErr := io.ReadAll(call.Resp.Body)
	require.NoError(t, readErr)
	if len(body) == 0 { // MSAL has read a device code's answer already
		_, text, _ := strings.Cut(call.Err.Error(), "\n")
		body = []byte(text)
	}
	require.NoError(t, json.Unmarshal(body, &b), "%s", body)
	return b.Error
}

// post sends a form to the token endpoint as no MSAL client would.
func post(t *testing.T, s *entratest.Server, path string, form url.Values) (int, map[string]any) {
	t.Helper()
	res, err := s.Client().PostForm(entratest.Authority(entratest.Contoso)+"/oauth2/v2.0/"+path, form)
	require.NoError(t, err)
	defer res.Body.Close()
	var m map[string]any
	require.NoError(t, json.NewDecoder(res.Body).Decode(&m))
	return res.StatusCode, m
}

func TestDeviceCode(t *testing.T) {
	s := start(t, entratest.Options{})
	c := newPublic(t, s)
	r := signIn(t, s, c, entratest.Alice)
	require.Equal(t, entratest.Alice.HomeAccountID(), r.Account.HomeAccountID)
	require.Equal(t, "login.microsoftonline.com", r.Account.Environment)
	require.Equal(t, entratest.Contoso, r.Account.Realm)
	require.Equal(t, entratest.Alice.Username, r.Account.PreferredUsername)
	require.Equal(t, entratest.Alice.Name, r.IDToken.Name)
	require.Contains(t, r.GrantedScopes, "User.Read")
	require.InDelta(t, 3600, time.Until(r.ExpiresOn).Seconds(), 60)
	require.Equal(t, 1, s.Requests("devicecode"))
	require.Equal(t, 1, s.Requests("openid-configuration"))

	r2, err := c.AcquireTokenSilent(t.Context(), scopes, public.WithSilentAccount(r.Account))
	require.NoError(t, err)
	require.Equal(t, r.AccessToken, r2.AccessToken)
	require.Equal(t, 1, s.Requests("instance"))
	require.Zero(t, s.Requests(entratest.GrantRefreshToken))

	r3, err := c.AcquireTokenSilent(t.Context(), mailRead, public.WithSilentAccount(r.Account))
	require.NoError(t, err)
	require.NotEqual(t, r.AccessToken, r3.AccessToken)
	require.Equal(t, 1, s.Requests(entratest.GrantRefreshToken))
}

// The scopes are those of the request for the device code: MSAL Python does not
// repeat them in the request for the tokens.
func TestDeviceCodeHasTheScopes(t *testing.T) {
	s := start(t, entratest.Options{Interval: -1})
	status, dc := post(t, s, "devicecode", url.Values{"client_id": {"client"}, "scope": {"User.Read openid offline_access"}})
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, entratest.Approve(t.Context(), s.Client(), dc["verification_uri"].(string), dc["user_code"].(string), entratest.Alice.Username))
	status, tokens := post(t, s, "token", url.Values{"client_id": {"client"}, "grant_type": {entratest.GrantDeviceCode}, "device_code": {dc["device_code"].(string)}})
	require.Equal(t, http.StatusOK, status)
	require.NotEmpty(t, tokens["id_token"])
	require.NotEmpty(t, tokens["refresh_token"])
	require.Equal(t, "User.Read openid", tokens["scope"])
}

func TestDeviceCodePolling(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	s := start(t, entratest.Options{Interval: 5 * time.Second, Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	advance := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }

	begin := func() (device, user, page string) {
		status, m := post(t, s, "devicecode", url.Values{"client_id": {appID}, "scope": {"User.Read"}})
		require.Equal(t, 200, status)
		require.EqualValues(t, 5, m["interval"])
		require.EqualValues(t, 900, m["expires_in"])
		return m["device_code"].(string), m["user_code"].(string), m["verification_uri"].(string)
	}
	poll := func(device, client string) any {
		_, m := post(t, s, "token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {client}, "device_code": {device}, "scope": {"User.Read openid"}})
		if _, ok := m["access_token"]; ok {
			return "tokens"
		}
		return m["error"]
	}

	device, user, page := begin()
	require.Equal(t, "authorization_pending", poll(device, appID))
	require.Equal(t, "slow_down", poll(device, appID))
	advance(5 * time.Second)
	require.Equal(t, "authorization_pending", poll(device, appID))
	require.Equal(t, "bad_verification_code", poll(device, "another-client"))
	require.Error(t, entratest.Approve(t.Context(), s.Client(), page, "ZZZZ-ZZZZ", entratest.Bob.Username), "an unknown code")
	require.Error(t, entratest.Approve(t.Context(), s.Client(), page, user, "nobody@contoso.example"))
	require.NoError(t, entratest.Approve(t.Context(), s.Client(), page, strings.ToLower(strings.ReplaceAll(user, "-", "")), entratest.Bob.Username))
	require.Error(t, entratest.Approve(t.Context(), s.Client(), page, user, entratest.Alice.Username), "a second approval")
	require.Equal(t, "tokens", poll(device, appID), "an approved code is honoured however soon it is polled")
	require.Equal(t, "bad_verification_code", poll(device, appID), "it is good for one sign-in")

	device, user, page = begin()
	require.NoError(t, entratest.Decline(t.Context(), s.Client(), page, user, entratest.Bob.Username))
	require.Equal(t, "authorization_declined", poll(device, appID))

	device, user, page = begin()
	advance(16 * time.Minute)
	require.Error(t, entratest.Approve(t.Context(), s.Client(), page, user, entratest.Bob.Username))
	require.Equal(t, "expired_token", poll(device, appID))
}

func TestDeviceCodeWithMSAL(t *testing.T) {
	t.Run("pending and slow_down are waited out", func(t *testing.T) {
		s := start(t, entratest.Options{Interval: time.Hour})
		dc, err := newPublic(t, s).AcquireTokenByDeviceCode(t.Context(), scopes)
		require.NoError(t, err)
		pending, slowDown := s.Hold(entratest.GrantDeviceCode), s.Hold(entratest.GrantDeviceCode)
		done := make(chan error, 1)
		go func() { _, err := dc.AuthenticationResult(t.Context()); done <- err }()
		<-pending.Arrived()
		pending.Release()
		<-slowDown.Arrived() // its answer stands
		require.NoError(t, entratest.Approve(t.Context(), s.Client(), dc.Result.VerificationURL, dc.Result.UserCode, entratest.Alice.Username))
		slowDown.Release()
		require.NoError(t, <-done)
		require.Equal(t, 3, s.Requests(entratest.GrantDeviceCode))
	})
	t.Run("declined", func(t *testing.T) {
		s := start(t, entratest.Options{})
		dc, err := newPublic(t, s).AcquireTokenByDeviceCode(t.Context(), scopes)
		require.NoError(t, err)
		require.NoError(t, entratest.Decline(t.Context(), s.Client(), dc.Result.VerificationURL, dc.Result.UserCode, entratest.Alice.Username))
		_, err = dc.AuthenticationResult(t.Context())
		require.Equal(t, "authorization_declined", oauthError(t, err))
	})
}

func TestRefreshTokenRotation(t *testing.T) {
	s := start(t, entratest.Options{})
	refresh := func(token, client string) (string, any) {
		_, m := post(t, s, "token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {token}, "scope": {"User.Read offline_access"}})
		next, _ := m["refresh_token"].(string)
		return next, m["error"]
	}
	first := refreshToken(t, s, entratest.Alice)
	other := refreshToken(t, s, entratest.Alice)

	_, e := refresh(first, "another-client")
	require.Equal(t, "invalid_grant", e)
	second, e := refresh(first, appID)
	require.Nil(t, e)
	third, e := refresh(second, appID)
	require.Nil(t, e)
	require.Zero(t, s.Reuses())

	_, e = refresh(first, appID)
	require.Equal(t, "invalid_grant", e)
	require.Equal(t, 1, s.Reuses())
	_, e = refresh(third, appID)
	require.Equal(t, "invalid_grant", e, "reuse ends the whole family")
	next, e := refresh(other, appID)
	require.Nil(t, e, "another sign-in is not touched")

	require.NoError(t, s.Revoke(entratest.Bob.Username))
	next, e = refresh(next, appID)
	require.Nil(t, e)
	require.NoError(t, s.Revoke(entratest.Alice.Username))
	_, e = refresh(next, appID)
	require.Equal(t, "invalid_grant", e)
}

func TestAllowReuse(t *testing.T) {
	s := start(t, entratest.Options{AllowReuse: true})
	first := refreshToken(t, s, entratest.Alice)
	for range 3 {
		status, _ := post(t, s, "token", url.Values{"grant_type": {"refresh_token"}, "client_id": {appID}, "refresh_token": {first}, "scope": {"User.Read"}})
		require.Equal(t, 200, status)
	}
	require.Equal(t, 2, s.Reuses())
}

// refreshToken signs a user in without MSAL, which does not show the token.
func refreshToken(t *testing.T, s *entratest.Server, u entratest.User) string {
	t.Helper()
	_, d := post(t, s, "devicecode", url.Values{"client_id": {appID}, "scope": {"User.Read offline_access"}})
	require.NoError(t, entratest.Approve(t.Context(), s.Client(), d["verification_uri"].(string), d["user_code"].(string), u.Username))
	status, m := post(t, s, "token", url.Values{"grant_type": {"device_code"}, "client_id": {appID}, "device_code": {d["device_code"].(string)}, "scope": {"User.Read offline_access"}})
	require.Equal(t, 200, status)
	return m["refresh_token"].(string)
}

func TestConcurrentUseOfOneRefreshToken(t *testing.T) {
	s := start(t, entratest.Options{StateFile: filepath.Join(t.TempDir(), "state.json")})
	token := refreshToken(t, s, entratest.Alice)
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 8 {
		wg.Go(func() {
			res, err := s.Client().PostForm(entratest.Authority(entratest.Contoso)+"/oauth2/v2.0/token",
				url.Values{"grant_type": {"refresh_token"}, "client_id": {appID}, "refresh_token": {token}, "scope": {"User.Read"}})
			if err != nil {
				return
			}
			res.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			statuses[res.StatusCode]++
		})
	}
	wg.Wait()
	require.Equal(t, map[int]int{200: 1, 400: 7}, statuses, "exactly one may have it")
	require.Equal(t, 1, s.Reuses(), "the first reuse ends the family, so the others are of an unknown token")
}

func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demo", "state.json")
	first := start(t, entratest.Options{StateFile: path})
	token := refreshToken(t, first, entratest.Carol)
	second := start(t, entratest.Options{StateFile: path})
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {appID}, "refresh_token": {token}, "scope": {"User.Read openid"}}
	status, m := post(t, second, "token", form)
	require.Equal(t, 200, status)
	require.NotEmpty(t, m["id_token"])
	status, _ = post(t, first, "token", form)
	require.Equal(t, 400, status, "both servers have one state")
	require.Equal(t, 1, first.Reuses())

	without := start(t, entratest.Options{})
	status, _ = post(t, without, "token", form)
	require.Equal(t, 400, status)

	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(b), token)
	for _, s := range append(first.Issued(), second.Issued()...) {
		require.NotContains(t, string(b), s)
	}
	if runtime.GOOS != "windows" {
		fi, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	}
}

func TestAuthorizationCode(t *testing.T) {
	s := start(t, entratest.Options{Secrets: map[string]string{webID: webSecret}})
	const redirect = "http://localhost:1/callback"
	c := newConfidential(t, s, webSecret)
	u, err := c.AuthCodeURL(t.Context(), webID, redirect, append(scopes, "openid", "offline_access", "profile"))
	require.NoError(t, err)
	code, err := entratest.Authorize(t.Context(), s.Client(), u, entratest.Bob.Username)
	require.NoError(t, err)
	r, err := c.AcquireTokenByAuthCode(t.Context(), code, redirect, scopes)
	require.NoError(t, err)
	require.Equal(t, entratest.Bob.HomeAccountID(), r.Account.HomeAccountID)
	_, err = c.AcquireTokenSilent(t.Context(), mailRead, confidential.WithSilentAccount(r.Account))
	require.NoError(t, err)

	_, err = c.AcquireTokenByAuthCode(t.Context(), code, redirect, scopes)
	require.Equal(t, "invalid_grant", oauthError(t, err), "a code is good once")
	_, err = c.AcquireTokenSilent(t.Context(), []string{"Files.Read"}, confidential.WithSilentAccount(r.Account))
	require.Equal(t, "invalid_grant", oauthError(t, err), "and its second use revokes what the first one gave")
}

func TestPKCE(t *testing.T) {
	s := start(t, entratest.Options{})
	const redirect, verifier = "http://localhost:1", "a-verifier-of-no-less-than-forty-three-letters"
	h := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(h[:])
	c := newPublic(t, s)
	for name, tc := range map[string]struct{ verifier, want string }{
		"right":   {verifier, ""},
		"wrong":   {verifier + "x", "invalid_grant"},
		"missing": {"", "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := c.AuthCodeURL(t.Context(), appID, redirect, scopes)
			require.NoError(t, err)
			code, err := entratest.Authorize(t.Context(), s.Client(), u+"&code_challenge_method=S256&code_challenge="+challenge, entratest.Alice.Username)
			require.NoError(t, err)
			_, err = c.AcquireTokenByAuthCode(t.Context(), code, redirect, scopes, public.WithChallenge(tc.verifier))
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, tc.want, oauthError(t, err))
		})
	}
	t.Run("no redirect to strangers", func(t *testing.T) {
		u, err := c.AuthCodeURL(t.Context(), appID, "https://attacker.example/", scopes)
		require.NoError(t, err)
		_, err = entratest.Authorize(t.Context(), s.Client(), u, entratest.Alice.Username)
		require.Error(t, err)
	})
}

func TestInteractive(t *testing.T) {
	s := start(t, entratest.Options{})
	c := newPublic(t, s)
	r, err := c.AcquireTokenInteractive(t.Context(), scopes, public.WithOpenURL(entratest.Browser(s.Client(), entratest.Carol.Username)))
	require.NoError(t, err)
	require.Equal(t, entratest.Carol.HomeAccountID(), r.Account.HomeAccountID)
	require.NotEqual(t, entratest.Carol.ID, r.Account.LocalAccountID, "a guest has an object id of its own in each tenant")
	require.Equal(t, 1, s.Requests(entratest.GrantAuthorizationCode))
}

func TestClientCredentials(t *testing.T) {
	s := start(t, entratest.Options{Secrets: map[string]string{webID: webSecret}})
	app := []string{"https://graph.microsoft.com/.default"}
	r, err := newConfidential(t, s, webSecret).AcquireTokenByCredential(t.Context(), app)
	require.NoError(t, err)
	require.NotEmpty(t, r.AccessToken)
	_, err = newConfidential(t, s, webSecret).AcquireTokenByCredential(t.Context(), scopes)
	require.Equal(t, "invalid_scope", oauthError(t, err))
	_, err = newConfidential(t, s, "wrong").AcquireTokenByCredential(t.Context(), app)
	require.Equal(t, "invalid_client", oauthError(t, err))
	require.NotContains(t, err.Error(), webSecret)
}

func TestOnBehalfOf(t *testing.T) {
	s := start(t, entratest.Options{Secrets: map[string]string{webID: webSecret}})
	user := signIn(t, s, newPublic(t, s), entratest.Alice)
	api := newConfidential(t, s, webSecret)
	r, err := api.AcquireTokenOnBehalfOf(t.Context(), user.AccessToken, scopes)
	require.NoError(t, err)
	require.Equal(t, entratest.Alice.HomeAccountID(), r.Account.HomeAccountID)
	again, err := api.AcquireTokenOnBehalfOf(t.Context(), user.AccessToken, scopes)
	require.NoError(t, err)
	require.Equal(t, r.AccessToken, again.AccessToken)
	require.Equal(t, 1, s.Requests(entratest.GrantOnBehalfOf))

	for name, bad := range map[string]string{
		"another authority's": signIn(t, s, newPublic(t, s), entratest.Alice).AccessToken[:40] + "x.y",
		"an id token":         user.IDToken.RawToken,
		"tampered":            tamper(user.AccessToken),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := api.AcquireTokenOnBehalfOf(t.Context(), bad, scopes)
			require.Equal(t, "invalid_grant", oauthError(t, err))
		})
	}
}

// tamper changes a token's payload and leaves its signature.
func tamper(token string) string {
	p := strings.Split(token, ".")
	b, _ := base64.RawURLEncoding.DecodeString(p[1])
	b = []byte(strings.Replace(string(b), entratest.Alice.Username, entratest.Bob.Username, 1))
	return p[0] + "." + base64.RawURLEncoding.EncodeToString(b) + "." + p[2]
}

// TestTokenSignature checks a token with nothing but what the authority
// publishes.
func TestTokenSignature(t *testing.T) {
	s := start(t, entratest.Options{})
	r := signIn(t, s, newPublic(t, s), entratest.Alice)
	res, err := s.Client().Get(entratest.Authority(entratest.Contoso) + "/discovery/v2.0/keys")
	require.NoError(t, err)
	defer res.Body.Close()
	var set struct{ Keys []struct{ X, Y, Kid string } }
	require.NoError(t, json.NewDecoder(res.Body).Decode(&set))
	require.Len(t, set.Keys, 1)
	coordinate := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		require.NoError(t, err)
		return b
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, coordinate(set.Keys[0].X), coordinate(set.Keys[0].Y)))
	require.NoError(t, err)
	valid := func(token string) bool {
		i := strings.LastIndexByte(token, '.')
		h := sha256.Sum256([]byte(token[:i]))
		sig, err := base64.RawURLEncoding.DecodeString(token[i+1:])
		require.NoError(t, err)
		return ecdsa.Verify(key, h[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	}
	require.True(t, valid(r.AccessToken))
	require.True(t, valid(r.IDToken.RawToken))
	require.False(t, valid(tamper(r.AccessToken)))
	require.Equal(t, entratest.Alice.ID, r.IDToken.Oid)
	require.Equal(t, appID, r.IDToken.Audience)
}

func TestSeveralTenants(t *testing.T) {
	s := start(t, entratest.Options{})
	c := newPublic(t, s)
	home := signIn(t, s, c, entratest.Alice)
	guest, err := c.AcquireTokenSilent(t.Context(), scopes, public.WithSilentAccount(home.Account), public.WithTenantID(entratest.Fabrikam))
	require.NoError(t, err)
	require.Equal(t, entratest.Fabrikam, guest.IDToken.TenantID)
	require.Equal(t, home.Account.HomeAccountID, guest.Account.HomeAccountID)
	require.NotEqual(t, home.IDToken.Oid, guest.IDToken.Oid)

	_, err = c.AcquireTokenSilent(t.Context(), scopes, public.WithSilentAccount(home.Account), public.WithTenantID("99999999-0000-4000-8000-000000000000"))
	require.Error(t, err)

	common, err := public.New(appID, public.WithAuthority(entratest.Authority("common")), public.WithHTTPClient(s.Client()))
	require.NoError(t, err)
	r := signIn(t, s, common, entratest.Carol)
	require.Equal(t, entratest.Fabrikam, r.IDToken.TenantID)
}

func TestLifetimes(t *testing.T) {
	s := start(t, entratest.Options{})
	s.SetLifetime(time.Minute, 0) // MSAL does not use a token in its last five minutes
	c := newPublic(t, s)
	r := signIn(t, s, c, entratest.Alice)
	for i := range 2 {
		_, err := c.AcquireTokenSilent(t.Context(), scopes, public.WithSilentAccount(r.Account))
		require.NoError(t, err)
		require.Equal(t, i+1, s.Requests(entratest.GrantRefreshToken))
	}
	s.SetLifetime(time.Hour, 0)
	for range 2 {
		_, err := c.AcquireTokenSilent(t.Context(), scopes, public.WithSilentAccount(r.Account))
		require.NoError(t, err)
		require.Equal(t, 3, s.Requests(entratest.GrantRefreshToken))
	}
	s.SetLifetime(time.Hour, time.Nanosecond) // valid, and to be refreshed
	for i := range 3 {
		_, err := c.AcquireTokenSilent(t.Context(), mailRead, public.WithSilentAccount(r.Account))
		require.NoError(t, err)
		require.Equal(t, 4+i, s.Requests(entratest.GrantRefreshToken))
	}
}

func TestFail(t *testing.T) {
	s := start(t, entratest.Options{})
	c := newPublic(t, s)
	r := signIn(t, s, c, entratest.Alice)
	silent := func() error {
		_, err := c.AcquireTokenSilent(t.Context(), mailRead, public.WithSilentAccount(r.Account))
		return err
	}
	s.Fail(entratest.GrantRefreshToken, 1, entratest.Failure{Status: 429, RetryAfter: 7 * time.Second})
	s.Fail(entratest.GrantRefreshToken, 1, entratest.Failure{Status: 503})
	s.Fail(entratest.GrantRefreshToken, 1, entratest.Failure{})
	err := silent()
	var call msalerrors.CallErr
	require.True(t, errors.As(err, &call))
	require.Equal(t, 429, call.Resp.StatusCode)
	require.Equal(t, "7", call.Resp.Header.Get("Retry-After"))
	require.True(t, errors.As(silent(), &call))
	require.Equal(t, 503, call.Resp.StatusCode)
	err = silent()
	require.Error(t, err)
	require.False(t, errors.As(err, &call), "the connection is closed without an answer")
	s.SetLifetime(time.Minute, 0) // from here on MSAL refreshes at each call
	require.NoError(t, silent(), "nothing was spent")
	require.Zero(t, s.Reuses())

	// An outage of no known length.
	s.Fail(entratest.GrantRefreshToken, 1000, entratest.Failure{Status: 503})
	for range 3 {
		require.Error(t, silent())
	}
	s.Fail(entratest.GrantRefreshToken, 0, entratest.Failure{})
	require.NoError(t, silent())
	s.Fail(entratest.GrantRefreshToken, 1, entratest.Failure{Status: 503})
	s.Fail(entratest.GrantClientCredentials, 0, entratest.Failure{})
	require.Error(t, silent(), "control: another grant's are left")
}

func TestHold(t *testing.T) {
	s := start(t, entratest.Options{})
	c := newPublic(t, s)
	r := signIn(t, s, c, entratest.Alice)
	h := s.Hold(entratest.GrantRefreshToken)
	done := make(chan error, 1)
	go func() {
		_, err := c.AcquireTokenSilent(t.Context(), mailRead, public.WithSilentAccount(r.Account))
		done <- err
	}()
	<-h.Arrived()
	select {
	case err := <-done:
		t.Fatalf("the request was not held: %v", err)
	default:
	}
	h.Release()
	require.NoError(t, <-done)

	h = s.Hold(entratest.GrantRefreshToken)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := c.AcquireTokenSilent(ctx, []string{"Files.Read"}, public.WithSilentAccount(r.Account))
		done <- err
	}()
	<-h.Arrived()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	_, err := c.AcquireTokenSilent(t.Context(), []string{"Files.Read"}, public.WithSilentAccount(r.Account))
	require.Equal(t, "invalid_grant", oauthError(t, err), "what a held request spends is spent")
	require.Equal(t, 1, s.Reuses())
}

func TestSeveralHolds(t *testing.T) {
	s := start(t, entratest.Options{AllowReuse: true})
	c := newPublic(t, s)
	r := signIn(t, s, c, entratest.Alice)
	resources := []string{"User.Read/a", "User.Read/b", "User.Read/c", "User.Read/d"}
	var held []*entratest.Hold
	for range resources {
		held = append(held, s.Hold(entratest.GrantRefreshToken))
	}
	type answer struct {
		scope string
		err   error
	}
	answers := make(chan answer, len(resources))
	for i, scope := range resources {
		go func() {
			_, err := c.AcquireTokenSilent(t.Context(), []string{scope}, public.WithSilentAccount(r.Account))
			answers <- answer{scope, err}
		}()
		<-held[i].Arrived() // so the i-th hold is of the i-th scope
	}
	require.Empty(t, answers)
	for _, i := range []int{2, 0, 3, 1} { // in another order than they arrived
		held[i].Release()
		held[i].Release()
		require.Equal(t, answer{scope: resources[i]}, <-answers)
	}

	s.Hold(entratest.GrantRefreshToken).Release()
	_, err := c.AcquireTokenSilent(t.Context(), []string{"User.Read/e"}, public.WithSilentAccount(r.Account))
	require.NoError(t, err, "a hold that was released early holds nothing back")
}

func TestDelay(t *testing.T) {
	s := start(t, entratest.Options{})
	c := newPublic(t, s)
	r := signIn(t, s, c, entratest.Alice)
	s.SetDelay(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.AcquireTokenSilent(ctx, mailRead, public.WithSilentAccount(r.Account))
	require.ErrorIs(t, err, context.DeadlineExceeded)

	s.SetDelay(0)
	c = newPublic(t, s)
	r = signIn(t, s, c, entratest.Alice)
	s.SetDelay(30 * time.Millisecond)
	begun := time.Now()
	_, err = c.AcquireTokenSilent(t.Context(), mailRead, public.WithSilentAccount(r.Account))
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(begun), 30*time.Millisecond)
}

func TestExpire(t *testing.T) {
	for _, data := range []string{"planted-secret", `{"AccessToken":"planted-secret"}`} {
		_, err := entratest.Expire([]byte(data))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "planted")
	}
	for _, data := range []string{"", "{}", `{"AccessToken":{}}`} {
		got, err := entratest.Expire([]byte(data))
		if data == "" {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.JSONEq(t, data, string(got))
	}
	got, err := entratest.Expire(nil)
	require.NoError(t, err)
	require.Nil(t, got)
	got, err = entratest.Expire([]byte(`{"AccessToken":{"k":{"expires_on":"9999999999","refresh_on":"1","secret":"x","other":7}},"Account":{"a":{}},"Else":[1]}`))
	require.NoError(t, err)
	var doc struct {
		AccessToken map[string]struct {
			Expires   json.Number `json:"expires_on"`
			RefreshOn *string     `json:"refresh_on"`
			Secret    string
			Other     int
		}
		Account map[string]any
		Else    []int
	}
	require.NoError(t, json.Unmarshal(got, &doc))
	at := doc.AccessToken["k"]
	seconds, err := at.Expires.Int64()
	require.NoError(t, err)
	require.Less(t, seconds, time.Now().Unix())
	require.Nil(t, at.RefreshOn)
	require.Equal(t, "x", at.Secret)
	require.Equal(t, 7, at.Other)
	require.Len(t, doc.Account, 1)
	require.Equal(t, []int{1}, doc.Else)
}

func TestCloseEndsHeldRequests(t *testing.T) {
	s, err := entratest.Start(entratest.Options{})
	require.NoError(t, err)
	c := newPublic(t, s)
	r := signIn(t, s, c, entratest.Alice)
	h := s.Hold(entratest.GrantRefreshToken)
	done := make(chan error, 1)
	go func() {
		_, err := c.AcquireTokenSilent(t.Context(), mailRead, public.WithSilentAccount(r.Account))
		done <- err
	}()
	<-h.Arrived()
	require.NoError(t, s.Close())
	require.Error(t, <-done)
	require.NoError(t, s.Close(), "twice is once")
}

func TestDiscovery(t *testing.T) {
	s := start(t, entratest.Options{})
	for _, tc := range []struct {
		host string
		want int
	}{{"login.microsoftonline.com", 200}, {"login.windows.net", 200}, {"attacker.example", 400}} {
		res, err := s.Client().Get("https://login.microsoftonline.com/common/discovery/instance?api-version=1.1&authorization_endpoint=" +
			url.QueryEscape("https://"+tc.host+"/"+entratest.Contoso+"/oauth2/v2.0/authorize"))
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, tc.want, res.StatusCode, tc.host)
	}
	// MSAL gives up on a host that instance discovery does not vouch for.
	c, err := public.New(appID, public.WithAuthority("https://attacker.example/"+entratest.Contoso), public.WithHTTPClient(s.Client()))
	require.NoError(t, err)
	_, err = c.AcquireTokenByDeviceCode(t.Context(), scopes)
	require.Error(t, err)
}

func TestClientLeavesLoopbackNever(t *testing.T) {
	s := start(t, entratest.Options{})
	for _, u := range []string{"https://graph.microsoft.com/", "http://192.0.2.1/", "https://login.microsoftonline.com.attacker.example/"} {
		_, err := s.Client().Get(u)
		require.ErrorContains(t, err, "is not on loopback", u)
	}
	_, err := http.Get("https://" + strings.Fields(s.Endpoint())[0] + "/") //nolint:bodyclose // it fails
	require.ErrorContains(t, err, "certificate", "nobody else trusts the server")
	other := start(t, entratest.Options{})
	_, cert, _ := strings.Cut(other.Endpoint(), " ")
	addr, _, _ := strings.Cut(s.Endpoint(), " ")
	mixed, err := entratest.NewClient(addr + " " + cert)
	require.NoError(t, err)
	_, err = mixed.Get("https://login.microsoftonline.com/common/discovery/keys")
	require.ErrorContains(t, err, "certificate")
	for _, bad := range []string{"", "127.0.0.1:1", "nowhere AAAA", "127.0.0.1:1 !", "127.0.0.1:1 AAAA"} {
		_, err := entratest.NewClient(bad)
		require.Error(t, err, "%q", bad)
	}
}

func TestPages(t *testing.T) {
	s := start(t, entratest.Options{})
	_, d := post(t, s, "devicecode", url.Values{"client_id": {appID}, "scope": {"User.Read"}})

	form := url.Values{"user_code": {d["user_code"].(string)}, "username": {entratest.Alice.Username}, "answer": {"yes"}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d["verification_uri"].(string), strings.NewReader(form.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", "https://attacker.example")
	forged, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, forged.Body.Close())
	require.Equal(t, http.StatusForbidden, forged.StatusCode, "another site may not approve for the user")

	res, err := http.Get(d["verification_uri"].(string) + "?user_code=" + url.QueryEscape(`"><script>`))
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(b), entratest.Alice.Username)
	require.NotContains(t, string(b), `"><script>`)
	for _, secret := range s.Issued() {
		require.NotContains(t, string(b), secret)
	}
}

// TestErrorsHoldNoSecret sends secrets in every request that fails and looks
// for them in what comes back.
func TestErrorsHoldNoSecret(t *testing.T) {
	s := start(t, entratest.Options{Secrets: map[string]string{webID: webSecret}})
	spent := refreshToken(t, s, entratest.Alice)
	for range 2 {
		post(t, s, "token", url.Values{"grant_type": {"refresh_token"}, "client_id": {appID}, "refresh_token": {spent}, "scope": {"User.Read"}})
	}
	for _, form := range []url.Values{
		{"grant_type": {"refresh_token"}, "client_id": {appID}, "refresh_token": {spent}},
		{"grant_type": {"authorization_code"}, "client_id": {appID}, "code": {spent}},
		{"grant_type": {"device_code"}, "client_id": {appID}, "device_code": {spent}},
		{"grant_type": {entratest.GrantOnBehalfOf}, "client_id": {webID}, "client_secret": {webSecret}, "requested_token_use": {"on_behalf_of"}, "assertion": {spent}},
		{"grant_type": {"client_credentials"}, "client_id": {webID}, "client_secret": {spent}},
		{"grant_type": {spent}, "client_id": {appID}},
		{"grant_type": {"refresh_token"}, "refresh_token": {spent}},
	} {
		status, m := post(t, s, "token", form)
		require.GreaterOrEqual(t, status, 400)
		require.NotContains(t, fmt.Sprint(m), spent)
		require.NotContains(t, fmt.Sprint(m), webSecret)
	}
}

// TestOtherProcess has another process sign in at this one's server.
func TestOtherProcess(t *testing.T) {
	s := start(t, entratest.Options{})
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "ENTRA_TEST_ENDPOINT="+s.Endpoint())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, entratest.Bob.HomeAccountID()+"\n", string(out))
	require.Equal(t, 1, s.Requests("devicecode"))
}

func child(endpoint string) int {
	err := func() error {
		client, err := entratest.NewClient(endpoint)
		if err != nil {
			return err
		}
		c, err := public.New(appID, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(client))
		if err != nil {
			return err
		}
		dc, err := c.AcquireTokenByDeviceCode(context.Background(), scopes)
		if err != nil {
			return err
		}
		if err := entratest.Approve(context.Background(), client, dc.Result.VerificationURL, dc.Result.UserCode, entratest.Bob.Username); err != nil {
			return err
		}
		r, err := dc.AuthenticationResult(context.Background())
		fmt.Println(r.Account.HomeAccountID)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// The browser takes the answer back to the program also where the program asks for
// the response mode "query".
func TestBrowserQuery(t *testing.T) {
	s := start(t, entratest.Options{})
	got := make(chan url.Values, 1)
	program := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.URL.Query() }))
	defer program.Close()
	q := url.Values{"client_id": {appID}, "response_type": {"code"}, "redirect_uri": {program.URL}, "scope": {"openid"}, "state": {"s"},
		"code_challenge": {"c"}, "code_challenge_method": {"S256"}}
	require.NoError(t, entratest.Browser(s.Client(), entratest.Alice.Username)(entratest.Authority(entratest.Contoso)+"/oauth2/v2.0/authorize?"+q.Encode()))
	answer := <-got
	require.Equal(t, "s", answer.Get("state"))
	require.NotEmpty(t, answer.Get("code"))
}
