package azcredential_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/azcredential"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const appID = "11111111-0000-4000-8000-000000000001"

var (
	scopes = []string{"https://management.azure.com/.default"}
	cae    = policy.TokenRequestOptions{Scopes: scopes, EnableCAE: true}
	noCAE  = policy.TokenRequestOptions{Scopes: scopes}
)

func TestMain(m *testing.M) {
	if endpoint := os.Getenv("AZCREDENTIAL_TEST_ENDPOINT"); endpoint != "" {
		if err := child(endpoint, os.Args[1], os.Args[2] == "locked"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// fixture is an authority, a cache and a user who is ready to sign in.
type fixture struct {
	*entratest.Server
	t     *testing.T
	cache *persistence.Cache
	asked atomic.Int32 // how often the user was asked
}

func start(t *testing.T, o entratest.Options) *fixture {
	t.Helper()
	s, err := entratest.Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	c, err := persistence.New(persistence.NewMemory())
	require.NoError(t, err)
	return &fixture{Server: s, t: t, cache: c}
}

func (f *fixture) options() *azcredential.Options {
	o := &azcredential.Options{TenantID: entratest.Contoso, DeviceCode: func(ctx context.Context, code public.DeviceCodeResult) error {
		f.asked.Add(1)
		return entratest.Approve(ctx, f.Client(), code.VerificationURL, code.UserCode, entratest.Alice.Username)
	}}
	o.Transport = f.Client()
	o.Retry.MaxRetries = -1
	return o
}

func (f *fixture) credential(change ...func(*azcredential.Options)) *azcredential.Credential {
	f.t.Helper()
	o := f.options()
	for _, c := range change {
		c(o)
	}
	c, err := azcredential.New(f.cache, appID, o)
	require.NoError(f.t, err)
	return c
}

func silently(o *azcredential.Options) { o.DisableAutomaticAuthentication = true }

func (f *fixture) expire() {
	f.t.Helper()
	require.NoError(f.t, f.cache.Update(f.t.Context(), entratest.Expire))
}

// capabilities are those that an access token names.
func capabilities(t *testing.T, token string) []string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	var claims struct {
		Capabilities []string `json:"xms_cc"`
	}
	require.NoError(t, json.Unmarshal(payload, &claims))
	return claims.Capabilities
}

func requireSignIn(t *testing.T, err error) *azidentity.AuthenticationRequiredError {
	t.Helper()
	var required *azidentity.AuthenticationRequiredError
	require.ErrorAs(t, err, &required)
	require.NotEmpty(t, persistence.Remedy(err))
	return required
}

func TestSignsInOnce(t *testing.T) {
	for name, change := range map[string]func(*fixture, *azcredential.Options){
		"device code": func(*fixture, *azcredential.Options) {},
		"browser": func(f *fixture, o *azcredential.Options) {
			o.DeviceCode = nil
			o.OpenURL = func(url string) error {
				f.asked.Add(1)
				return entratest.Browser(f.Client(), entratest.Alice.Username)(url)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, entratest.Options{})
			here := func(o *azcredential.Options) { change(f, o) }
			c := f.credential(here)
			first, err := c.GetToken(t.Context(), cae)
			require.NoError(t, err)
			require.InDelta(t, 3600, time.Until(first.ExpiresOn).Seconds(), 60)
			again, err := c.GetToken(t.Context(), cae)
			require.NoError(t, err)
			require.Equal(t, first, again)
			account, err := c.Account(t.Context())
			require.NoError(t, err)
			require.Equal(t, entratest.Alice.Username, account.Username)

			next := f.credential(here) // the next run of the program
			again, err = next.GetToken(t.Context(), cae)
			require.NoError(t, err)
			require.Equal(t, first.Token, again.Token)
			require.EqualValues(t, 1, f.asked.Load())
			require.Zero(t, f.Requests(entratest.GrantRefreshToken))

			f.expire()
			again, err = next.GetToken(t.Context(), cae)
			require.NoError(t, err)
			require.NotEqual(t, first.Token, again.Token)
			require.EqualValues(t, 1, f.asked.Load())
			require.Equal(t, 1, f.Requests(entratest.GrantRefreshToken))
		})
	}
}

func TestManyGoroutinesAskOnce(t *testing.T) {
	f := start(t, entratest.Options{})
	c := f.credential()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := c.GetToken(t.Context(), cae); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, f.asked.Load())
	f.expire()
	for range 8 {
		all.Go(func() {
			if _, err := c.GetToken(t.Context(), cae); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Equal(t, 1, f.Requests(entratest.GrantRefreshToken))
}

// A user who declines is not asked again by each call that waited meanwhile. The next
// call asks again, and so does one for something else.
func TestOneRefusalIsForAllWhoWaited(t *testing.T) {
	f := start(t, entratest.Options{})
	declined := errors.New("the user declined")
	asking, decline := make(chan struct{}), make(chan struct{})
	c := f.credential(func(o *azcredential.Options) {
		o.DeviceCode = func(context.Context, public.DeviceCodeResult) error {
			if f.asked.Add(1) == 1 {
				close(asking)
				<-decline
			}
			return declined
		}
	})
	get := func(tro policy.TokenRequestOptions) {
		_, err := c.GetToken(t.Context(), tro)
		assert.ErrorIs(t, err, declined)
	}
	var all sync.WaitGroup
	all.Go(func() { get(cae) })
	<-asking
	for range 4 {
		all.Go(func() { get(cae) })
	}
	other := cae
	other.Scopes = []string{"https://vault.azure.net/.default"}
	all.Go(func() { get(other) })
	waiting := func() int {
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:goruntime.Stack(stacks, true)]), ".oneSignIn(")
	}
	for waiting() < 5 {
		goruntime.Gosched()
	}
	close(decline)
	all.Wait()
	// One for all that wanted the same, and one for the other. Where the other was in
	// between, those that came after it cannot tell and asked once more.
	require.LessOrEqual(t, f.asked.Load(), int32(3))
	before := f.asked.Load()
	get(cae)
	require.Equal(t, before+1, f.asked.Load(), "a later call asks again")
}

// api is a service that refuses the tokens in revoked with a claims challenge.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	revoked []string
	seen    []string
}

func startAPI(t *testing.T) *api {
	a := &api{}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		a.seen = append(a.seen, token)
		if slices.Contains(a.revoked, token) {
			claims := base64.StdEncoding.EncodeToString([]byte(`{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`))
			w.Header().Set("WWW-Authenticate", `Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", error="insufficient_claims", claims="`+claims+`"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "hello")
	}))
	t.Cleanup(a.Close)
	return a
}

// client is a client of the SDK.
func (a *api) get(t *testing.T, cred azcore.TokenCredential) func() (string, error) {
	o := &policy.ClientOptions{Transport: a.Client()}
	o.Retry.MaxRetries = -1
	client, err := azcore.NewClient("test", "v1.0.0", runtime.PipelineOptions{PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(cred, scopes, nil)}}, o)
	require.NoError(t, err)
	return func() (string, error) {
		req, err := runtime.NewRequest(t.Context(), http.MethodGet, a.URL)
		require.NoError(t, err)
		resp, err := client.Pipeline().Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return fmt.Sprint(resp.StatusCode, " ", string(body)), nil
	}
}

func TestClientOfTheSDK(t *testing.T) {
	f, a := start(t, entratest.Options{}), startAPI(t)
	get := a.get(t, f.credential())
	got, err := get()
	require.NoError(t, err)
	require.Equal(t, "200 hello", got)
	require.Contains(t, capabilities(t, a.seen[0]), "CP1")
	require.EqualValues(t, 1, f.asked.Load())

	a.revoked = []string{a.seen[0]}
	got, err = get()
	require.NoError(t, err)
	require.Equal(t, "200 hello", got)
	require.Len(t, a.seen, 3, "a good token, the same one refused, another one")
	require.Contains(t, capabilities(t, a.seen[2]), "CP1")
	require.Equal(t, 1, f.Requests(entratest.GrantRefreshToken))
	require.EqualValues(t, 1, f.asked.Load(), "nobody is asked again")

	t.Run("the user must sign in", func(t *testing.T) {
		require.NoError(t, f.Revoke(entratest.Alice.Username))
		a.revoked = a.seen
		_, err := a.get(t, f.credential(silently))()
		required := requireSignIn(t, err)
		require.Contains(t, required.TokenRequestOptions.Claims, "nbf", "the claims go on to Authenticate")
		before := f.asked.Load()
		_, err = f.credential().Authenticate(t.Context(), required.TokenRequestOptions)
		require.NoError(t, err)
		require.Equal(t, before+1, f.asked.Load())
	})
}

func TestTokensForCAEAreApart(t *testing.T) {
	f := start(t, entratest.Options{})
	c := f.credential()
	with, err := c.GetToken(t.Context(), cae)
	require.NoError(t, err)
	without, err := c.GetToken(t.Context(), noCAE)
	require.NoError(t, err)
	require.Contains(t, capabilities(t, with.Token), "CP1")
	require.Empty(t, capabilities(t, without.Token))
	require.EqualValues(t, 1, f.asked.Load(), "one sign-in is enough for both")
	for range 2 {
		again, err := c.GetToken(t.Context(), cae)
		require.NoError(t, err)
		require.Equal(t, with.Token, again.Token)
		again, err = c.GetToken(t.Context(), noCAE)
		require.NoError(t, err)
		require.Equal(t, without.Token, again.Token)
	}

	// Another MSAL client of that application.
	client, err := public.New(appID, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(f.Client()), public.WithCache(f.cache))
	require.NoError(t, err)
	accounts, err := client.Accounts(t.Context())
	require.NoError(t, err)
	result, err := client.AcquireTokenSilent(t.Context(), scopes, public.WithSilentAccount(accounts[0]))
	require.NoError(t, err)
	require.Equal(t, without.Token, result.AccessToken)
	_, err = client.AcquireTokenSilent(t.Context(), []string{"User.Read"}, public.WithSilentAccount(accounts[0]))
	require.NoError(t, err)
	again, err := c.GetToken(t.Context(), cae)
	require.NoError(t, err)
	require.Equal(t, with.Token, again.Token, "MSAL keeps what it does not know")

	require.NoError(t, c.SignOut(t.Context()))
	data, err := f.cache.Load(t.Context())
	require.NoError(t, err)
	for _, secret := range f.Issued() {
		require.NotContains(t, string(data), secret)
	}
	_, err = f.credential(silently).GetToken(t.Context(), cae)
	requireSignIn(t, err)
	require.NoError(t, c.SignOut(t.Context()), "nobody is signed in")
}

func TestRefreshOn(t *testing.T) {
	f := start(t, entratest.Options{})
	f.SetLifetime(time.Hour, time.Millisecond) // refreshed at once
	c := f.credential()
	first, err := c.GetToken(t.Context(), cae)
	require.NoError(t, err)
	f.Fail(entratest.GrantRefreshToken, 1, entratest.Failure{Status: http.StatusServiceUnavailable})
	require.Eventually(t, func() bool {
		token, err := c.GetToken(t.Context(), cae)
		require.NoError(t, err)
		if f.Requests(entratest.GrantRefreshToken) == 1 {
			require.Equal(t, first.Token, token.Token, "the refresh has failed, and the token is good")
		}
		return token.Token != first.Token
	}, time.Minute, 10*time.Millisecond)
	require.EqualValues(t, 1, f.asked.Load())
}

func TestErrors(t *testing.T) {
	t.Run("nobody is signed in", func(t *testing.T) {
		f := start(t, entratest.Options{})
		_, err := f.credential(silently).GetToken(t.Context(), cae)
		require.Equal(t, cae, requireSignIn(t, err).TokenRequestOptions)
		require.ErrorContains(t, err, "nobody is signed in. Sign in")
		chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{f.credential(silently), f.credential()}, nil)
		require.NoError(t, err)
		_, err = chain.GetToken(t.Context(), cae)
		require.NoError(t, err, "a chain goes on to its next credential")
	})
	t.Run("the account is known from an azidentity.AuthenticationRecord", func(t *testing.T) {
		f := start(t, entratest.Options{})
		record := azidentity.AuthenticationRecord{HomeAccountID: entratest.Alice.HomeAccountID(), Username: entratest.Alice.Username}
		wanted := func(o *azcredential.Options) {
			silently(o)
			o.Account = persistence.Account{HomeAccountID: record.HomeAccountID, Username: record.Username}
		}
		_, err := f.credential(wanted).GetToken(t.Context(), cae)
		requireSignIn(t, err)
		require.ErrorContains(t, err, `nobody is signed in as "alice@contoso.example"`)
		require.NoError(t, f.credential(wanted).SignOut(t.Context()))
		_, err = f.credential().GetToken(t.Context(), cae)
		require.NoError(t, err)
		_, err = f.credential(wanted).GetToken(t.Context(), cae)
		require.NoError(t, err)
	})
	t.Run("the refresh token was revoked", func(t *testing.T) {
		f := start(t, entratest.Options{})
		_, err := f.credential().GetToken(t.Context(), cae)
		require.NoError(t, err)
		f.expire()
		require.NoError(t, f.Revoke(entratest.Alice.Username))
		_, err = f.credential(silently).GetToken(t.Context(), cae)
		requireSignIn(t, err)
		require.ErrorContains(t, err, "invalid_grant")
		_, err = f.credential().GetToken(t.Context(), cae)
		require.NoError(t, err)
		require.EqualValues(t, 2, f.asked.Load())
	})
	for name, failure := range map[string]entratest.Failure{
		"the authority has trouble": {Status: http.StatusServiceUnavailable},
		"the connection is lost":    {},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, entratest.Options{})
			c := f.credential(func(o *azcredential.Options) { o.Retry.MaxRetries = 0; o.Retry.RetryDelay = time.Millisecond })
			_, err := c.GetToken(t.Context(), cae)
			require.NoError(t, err)
			f.expire()
			f.Fail(entratest.GrantRefreshToken, 5, failure)
			_, err = c.GetToken(t.Context(), cae)
			require.Error(t, err)
			var required *azidentity.AuthenticationRequiredError
			require.False(t, errors.As(err, &required), "a sign-in would not help")
			require.EqualValues(t, 1, f.asked.Load())
			var failed *azidentity.AuthenticationFailedError
			require.Equal(t, failure.Status != 0, errors.As(err, &failed))
			if failure.Status != 0 {
				require.Equal(t, failure.Status, failed.RawResponse.StatusCode)
				require.Equal(t, 4, f.Requests(entratest.GrantRefreshToken), "the SDK has retried")
			} else {
				require.Equal(t, 1, f.Requests(entratest.GrantRefreshToken), "the refresh token may be spent")
			}
			require.Contains(t, persistence.Remedy(err), "later")
			for _, secret := range f.Issued() {
				require.NotContains(t, fmt.Sprintf("%v %+v", err, failed), secret)
			}
		})
	}
	t.Run("the storage fails", func(t *testing.T) {
		f := start(t, entratest.Options{})
		var err error
		f.cache, err = persistence.New(broken{persistence.NewMemory()})
		require.NoError(t, err)
		_, err = f.credential().GetToken(t.Context(), cae)
		require.ErrorIs(t, err, persistence.ErrKeyringLocked)
		require.Zero(t, f.asked.Load())
	})
	t.Run("the context has ended", func(t *testing.T) {
		f := start(t, entratest.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := f.credential().GetToken(ctx, cae)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, f.asked.Load())
	})
	t.Run("the user declines", func(t *testing.T) {
		f := start(t, entratest.Options{})
		c := f.credential(func(o *azcredential.Options) {
			o.DeviceCode = func(ctx context.Context, code public.DeviceCodeResult) error {
				return entratest.Decline(ctx, f.Client(), code.VerificationURL, code.UserCode, entratest.Alice.Username)
			}
		})
		_, err := c.GetToken(t.Context(), cae)
		var failed *azidentity.AuthenticationFailedError
		require.ErrorAs(t, err, &failed)
		require.ErrorContains(t, err, "authorization_declined")
	})
	t.Run("arguments", func(t *testing.T) {
		f := start(t, entratest.Options{})
		for name, wrong := range map[string]func() (*azcredential.Credential, error){
			"no cache":  func() (*azcredential.Credential, error) { return azcredential.New(nil, appID, nil) },
			"no client": func() (*azcredential.Credential, error) { return azcredential.New(f.cache, "", nil) },
			"tenant": func() (*azcredential.Credential, error) {
				return azcredential.New(f.cache, appID, &azcredential.Options{TenantID: "a/b"})
			},
		} {
			_, err := wrong()
			var own *persistence.Error
			require.ErrorAs(t, err, &own, name)
		}
		_, err := f.credential().GetToken(t.Context(), policy.TokenRequestOptions{})
		require.ErrorContains(t, err, "scope")
	})
}

type broken struct{ *persistence.Memory }

func (broken) LoadRevision(context.Context) ([]byte, string, error) {
	return nil, "", &persistence.Error{Op: "load", Err: persistence.ErrKeyringLocked, Remedy: "Unlock it."}
}

func (broken) Revision(context.Context) (string, error) {
	return "", &persistence.Error{Op: "load", Err: persistence.ErrKeyringLocked, Remedy: "Unlock it."}
}

func TestTenants(t *testing.T) {
	f := start(t, entratest.Options{})
	elsewhere := cae
	elsewhere.TenantID = entratest.Fabrikam
	_, err := f.credential().GetToken(t.Context(), elsewhere)
	require.ErrorContains(t, err, "not allowed")
	require.Zero(t, f.asked.Load())
	for _, allowed := range []string{"*", strings.ToUpper(entratest.Fabrikam)} {
		c := f.credential(func(o *azcredential.Options) { o.AdditionallyAllowedTenants = []string{allowed} })
		token, err := c.GetToken(t.Context(), elsewhere)
		require.NoError(t, err)
		home, err := c.GetToken(t.Context(), cae)
		require.NoError(t, err)
		require.NotEqual(t, home.Token, token.Token)
	}
	require.EqualValues(t, 1, f.asked.Load(), "one sign-in for all tenants")
	c := f.credential(func(o *azcredential.Options) { o.TenantID = "" })
	_, err = c.GetToken(t.Context(), elsewhere)
	require.NoError(t, err, "a credential of no tenant")
}

func TestSeveralAccounts(t *testing.T) {
	f := start(t, entratest.Options{})
	_, err := f.SignIn(t.Context(), f.cache, appID, entratest.Bob, scopes...)
	require.NoError(t, err)
	c := f.credential()
	token, err := c.GetToken(t.Context(), noCAE)
	require.NoError(t, err, "the only account")
	require.Zero(t, f.asked.Load())
	alice, err := c.Authenticate(t.Context(), noCAE)
	require.NoError(t, err)
	require.Equal(t, entratest.Alice.Username, alice.Username)
	now, err := c.GetToken(t.Context(), noCAE)
	require.NoError(t, err, "the account of the last sign-in")
	require.NotEqual(t, token.Token, now.Token)

	_, err = f.credential(silently).GetToken(t.Context(), noCAE)
	requireSignIn(t, err)
	require.ErrorContains(t, err, "several accounts")
	again, err := f.credential(silently, func(o *azcredential.Options) { o.Account = alice }).GetToken(t.Context(), noCAE)
	require.NoError(t, err)
	require.Equal(t, now.Token, again.Token)
	_, err = f.credential(func(o *azcredential.Options) { o.Account.HomeAccountID = "x.y" }).GetToken(t.Context(), noCAE)
	require.ErrorContains(t, err, "has signed in")
}

// Two processes that need a new token at once make one request, and the control,
// without locks, makes two and is taken for a thief.
func TestProcessesRefreshOnce(t *testing.T) {
	for _, locked := range []bool{true, false} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			f := start(t, entratest.Options{})
			path := filepath.Join(t.TempDir(), "cache.enc")
			var err error
			f.cache, err = open(path, locked)
			require.NoError(t, err)
			_, err = f.credential().GetToken(t.Context(), cae)
			require.NoError(t, err)
			f.expire()

			first := f.Hold(entratest.GrantRefreshToken)
			second := first
			if !locked {
				second = f.Hold(entratest.GrantRefreshToken)
			}
			mode := map[bool]string{true: "locked", false: "unlocked"}[locked]
			var children []*exec.Cmd
			var outputs []*bufio.Reader
			for range 2 {
				cmd := exec.CommandContext(t.Context(), os.Args[0], path, mode)
				cmd.Env = append(os.Environ(), "AZCREDENTIAL_TEST_ENDPOINT="+f.Endpoint())
				out, err := cmd.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, cmd.Start())
				children, outputs = append(children, cmd), append(outputs, bufio.NewReader(out))
			}
			for _, out := range outputs {
				line, err := out.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "calling\n", line)
			}
			<-first.Arrived()
			<-second.Arrived()
			first.Release()
			second.Release()
			var tokens []string
			for i, cmd := range children {
				rest, err := io.ReadAll(outputs[i])
				require.NoError(t, err)
				tokens = append(tokens, string(rest))
				if err := cmd.Wait(); locked {
					require.NoError(t, err, "%s", rest)
				}
			}
			if locked {
				require.Equal(t, tokens[0], tokens[1])
				require.Equal(t, 1, f.Requests(entratest.GrantRefreshToken))
				require.Zero(t, f.Reuses())
			} else {
				require.Equal(t, 2, f.Requests(entratest.GrantRefreshToken))
				require.Equal(t, 1, f.Reuses())
			}
		})
	}
}

func open(path string, locked bool) (*persistence.Cache, error) {
	file, err := encrypted.New(path, encrypted.Raw(make([]byte, 32)), nil)
	if err != nil {
		return nil, err
	}
	if locked {
		return persistence.New(file)
	}
	return persistence.New(struct{ persistence.Versioned }{file}) // has no locks
}

// child is a program that needs a token.
func child(endpoint, path string, locked bool) error {
	ctx := context.Background()
	cache, err := open(path, locked)
	if err != nil {
		return err
	}
	o := &azcredential.Options{TenantID: entratest.Contoso, DisableAutomaticAuthentication: true}
	client, err := entratest.NewClient(endpoint)
	if err != nil {
		return err
	}
	o.Transport = client
	c, err := azcredential.New(cache, appID, o)
	if err != nil {
		return err
	}
	fmt.Println("calling")
	token, err := c.GetToken(ctx, cae)
	if err != nil {
		return err
	}
	fmt.Println(token.Token)
	return nil
}
