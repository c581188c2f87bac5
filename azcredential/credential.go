package azcredential

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/persistence"
)

const organizations = "organizations"

// Options are settings of a [Credential]. The zero value signs the user in with the
// system's browser, in any tenant of the public cloud. The fields that package
// azidentity has too mean the same as there.
type Options struct {
	// ClientOptions are for requests to the authority: Cloud, Transport, Retry, …
	// The environment variable AZURE_AUTHORITY_HOST is not read.
	azcore.ClientOptions

	// TenantID is the tenant to sign in to: an ID or a domain; "" means
	// "organizations", any tenant.
	TenantID string
	// AdditionallyAllowedTenants are tenants that a token request may name beside
	// TenantID; "*" stands for all. Without a TenantID, all are allowed where this
	// is empty.
	AdditionallyAllowedTenants []string
	// DisableInstanceDiscovery keeps MSAL from asking Microsoft whether the
	// authority is one: for a private cloud.
	DisableInstanceDiscovery bool

	// Account is the account to use, as [Credential.Authenticate] returned it in an
	// earlier run. Without it, that of the last sign-in through this Credential is
	// used or, if there was none, the only one that the cache has. It is no secret, and
	// can be kept as JSON. Only its HomeAccountID counts: that of an
	// azidentity.AuthenticationRecord, which a program has kept before, serves too.
	Account persistence.Account

	// DisableAutomaticAuthentication makes GetToken fail with an
	// *azidentity.AuthenticationRequiredError where it would ask for a sign-in.
	DisableAutomaticAuthentication bool
	// DeviceCode shows a device code to the user, and returns at once. If it fails,
	// so does the sign-in, with its error. nil means a sign-in in the browser.
	DeviceCode func(ctx context.Context, code public.DeviceCodeResult) error
	// OpenURL opens a page in a browser on this machine; nil means the system's.
	OpenURL func(url string) error
	// RedirectURL is http://localhost with the port that the registration of the
	// application allows; "" means any port.
	RedirectURL string
	// LoginHint is the user name to offer in the browser.
	LoginHint string
}

// Credential is an [azcore.TokenCredential] that keeps its tokens in a
// [persistence.Cache]. It is safe for concurrent use, and so is the cache by any
// number of Credentials, MSAL clients and processes. See the package comment.
type Credential struct {
	cache    *persistence.Cache
	clientID string
	tenant   string
	o        Options

	plain, cae public.Client

	signingIn chan struct{} // holds one value while a sign-in is under way

	mu      sync.Mutex
	account persistence.Account // of the last sign-in
	failed  failedSignIn        // the last one of GetToken
}

// failedSignIn is a sign-in that failed: the user declined, or could not be asked. Calls
// for the same token that waited meanwhile fail with its error, and do not ask again.
type failedSignIn struct {
	n   int // how many have failed so far
	tro policy.TokenRequestOptions
	err error
}

var _ azcore.TokenCredential = (*Credential)(nil)

// New returns a Credential of the application with the ID clientID. It makes no
// request and does not read the cache. It fails, with an *persistence.Error, if an
// argument or an option cannot be used. Nil options mean the zero value.
func New(c *persistence.Cache, clientID string, options *Options) (*Credential, error) {
	credential := &Credential{cache: c, clientID: clientID, signingIn: make(chan struct{}, 1)}
	if options != nil {
		credential.o = *options
	}
	o := &credential.o
	o.AdditionallyAllowedTenants = slices.Clone(o.AdditionallyAllowedTenants)
	credential.tenant = o.TenantID
	if credential.tenant == "" {
		credential.tenant = organizations
	}
	var wrong string
	switch {
	case c == nil:
		wrong = "the cache is nil"
	case clientID == "":
		wrong = "the client ID is empty"
	case !isTenant(credential.tenant):
		wrong = "the tenant is neither an ID nor a domain"
	case o.Account.HomeAccountID == "" && o.Account != persistence.Account{}:
		wrong = "the account has no HomeAccountID"
	}
	if wrong != "" {
		return nil, credential.fail("open", errors.New(wrong), "Correct the arguments of azcredential.New.", nil)
	}
	host := o.Cloud.ActiveDirectoryAuthorityHost
	if host == "" {
		host = cloud.AzurePublic.ActiveDirectoryAuthorityHost
	}
	pipeline, err := azcore.NewClient("azcredential", "v0.1.0", runtime.PipelineOptions{PerRetry: []policy.Policy{sendOnce{}}}, &o.ClientOptions)
	if err != nil {
		return nil, credential.fail("open", err, "Correct the ClientOptions.", nil)
	}
	settings := []public.Option{
		public.WithAuthority(runtime.JoinPaths(host, credential.tenant)),
		public.WithHTTPClient(transport{pipeline.Pipeline()}),
		public.WithInstanceDiscovery(!o.DisableInstanceDiscovery && credential.tenant != "adfs"),
	}
	credential.plain, err = public.New(clientID, append(settings, public.WithCache(c))...)
	if err == nil {
		credential.cae, err = public.New(clientID, append(settings, public.WithCache(&caeView{cache: c}), public.WithClientCapabilities([]string{"CP1"}))...)
	}
	if err != nil {
		return nil, credential.fail("open", err, "Correct the tenant and the Cloud.", nil)
	}
	return credential, nil
}

// GetToken returns an access token for the scopes of tro: a cached one, or a new
// one by the refresh token, or else by a sign-in. It waits as long as ctx allows,
// and for a sign-in as long as the authority does. If a sign-in fails, the calls that
// waited for the same one fail with its error, and do not ask the user again. See the
// package comment for the steps and the errors.
func (c *Credential) GetToken(ctx context.Context, tro policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.silent(ctx, tro)
	if err == nil || c.o.DisableAutomaticAuthentication || !signInHelps(err) {
		return token, err
	}
	before := c.lastFailed().n
	done, err := c.oneSignIn(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	defer done()
	if token, err = c.silent(ctx, tro); err == nil || !signInHelps(err) { // another goroutine has asked
		return token, err
	}
	if failed := c.lastFailed(); failed.n != before && reflect.DeepEqual(failed.tro, tro) {
		return azcore.AccessToken{}, failed.err
	}
	result, err := c.signIn(ctx, tro)
	if err != nil && ctx.Err() == nil {
		c.mu.Lock()
		c.failed = failedSignIn{c.failed.n + 1, tro, err}
		c.mu.Unlock()
	}
	return accessToken(result), err
}

func (c *Credential) lastFailed() failedSignIn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// Authenticate asks the user to sign in, whatever is stored, and returns the account.
// Keep that for [Options].Account if several accounts may be signed in. tro is that
// of the *azidentity.AuthenticationRequiredError, or names the scopes that the program
// is going to need.
func (c *Credential) Authenticate(ctx context.Context, tro policy.TokenRequestOptions) (persistence.Account, error) {
	done, err := c.oneSignIn(ctx)
	if err != nil {
		return persistence.Account{}, err
	}
	defer done()
	result, err := c.signIn(ctx, tro)
	if err != nil {
		return persistence.Account{}, err
	}
	return accountOf(result.Account), nil
}

// Account returns the account that the next GetToken uses. It fails as GetToken does
// if there is none, or several.
func (c *Credential) Account(ctx context.Context) (persistence.Account, error) {
	account, err := c.find(ctx)
	if err != nil {
		return persistence.Account{}, c.silentError(err, policy.TokenRequestOptions{})
	}
	return accountOf(account), nil
}

// SignOut removes the account of this Credential from the cache: its tokens for all
// clients. It succeeds if nobody is signed in. See [persistence.Cache.SignOut] for
// what it does not do. A program that signs out by MSAL's RemoveAccount instead leaves
// the CAE access tokens stored until they expire.
func (c *Credential) SignOut(ctx context.Context) error {
	account, err := c.find(ctx)
	switch {
	case errors.Is(err, errNobody):
		return nil
	case err != nil:
		return c.silentError(err, policy.TokenRequestOptions{})
	}
	if err := c.cache.SignOut(ctx, accountOf(account)); err != nil {
		return c.callError("sign out", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account = persistence.Account{}
	return nil
}

// oneSignIn waits until no other sign-in of this Credential is under way.
func (c *Credential) oneSignIn(ctx context.Context) (done func(), err error) {
	select {
	case c.signingIn <- struct{}{}:
		return func() { <-c.signingIn }, nil
	case <-ctx.Done():
		return nil, c.callError("sign in", ctx.Err())
	}
}

var errNobody = errors.New("nobody is signed in")

// find returns the account to use.
func (c *Credential) find(ctx context.Context) (public.Account, error) {
	wanted := c.o.Account
	if wanted.HomeAccountID == "" {
		c.mu.Lock()
		wanted = c.account
		c.mu.Unlock()
	}
	accounts, err := c.plain.Accounts(ctx)
	if err != nil {
		return public.Account{}, err
	}
	if wanted.HomeAccountID != "" {
		accounts = slices.DeleteFunc(accounts, func(a public.Account) bool { return a.HomeAccountID != wanted.HomeAccountID })
	}
	// A user who has used several tenants, or names of the cloud, has an entry for each.
	var found []public.Account
	for _, a := range accounts {
		if !slices.ContainsFunc(found, func(f public.Account) bool { return f.HomeAccountID == a.HomeAccountID }) {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		if wanted.HomeAccountID != "" {
			return public.Account{}, fmt.Errorf("%w as %s", errNobody, shown(cmp.Or(wanted.Username, wanted.HomeAccountID)))
		}
		return public.Account{}, errNobody
	case 1:
		return found[0], nil
	}
	return public.Account{}, errSeveral
}

// silent returns a token without asking the user.
func (c *Credential) silent(ctx context.Context, tro policy.TokenRequestOptions) (azcore.AccessToken, error) {
	client, tenant, err := c.client(tro)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	account, err := c.find(ctx)
	if err != nil {
		return azcore.AccessToken{}, c.silentError(err, tro)
	}
	acquire := func(ctx context.Context) (public.AuthResult, error) {
		return client.AcquireTokenSilent(ctx, tro.Scopes, public.WithSilentAccount(account), public.WithClaims(tro.Claims), public.WithTenantID(tenant))
	}
	cached, err := acquire(context.WithValue(ctx, cacheOnly{}, true))
	if err == nil {
		return accessToken(cached), nil
	}
	if !errors.Is(err, errNeedsNetwork) {
		return azcore.AccessToken{}, c.silentError(err, tro)
	}
	result, err := c.alone(ctx, account, acquire)
	if err == nil {
		return accessToken(result), nil
	}
	// MSAL had a good token, and only wanted to refresh it early.
	if tro.Claims == "" && cached.AccessToken != "" && time.Now().Before(cached.ExpiresOn) {
		return accessToken(cached), nil
	}
	return azcore.AccessToken{}, c.silentError(err, tro)
}

// alone calls acquire under the account's lock, if the cache has locks.
func (c *Credential) alone(ctx context.Context, account public.Account, acquire func(context.Context) (public.AuthResult, error)) (public.AuthResult, error) {
	return carriedThrough(ctx, func(begin func() context.Context) (result public.AuthResult, err error) {
		called := false
		err = c.cache.Exclusive(ctx, account.HomeAccountID, func(context.Context) error {
			called = true
			if err = ctx.Err(); err == nil {
				result, err = acquire(begin())
			}
			return err
		})
		if !called && errors.Is(err, persistence.ErrUnavailable) && ctx.Err() == nil {
			return acquire(begin())
		}
		return result, err
	})
}

// signIn asks the user.
func (c *Credential) signIn(ctx context.Context, tro policy.TokenRequestOptions) (public.AuthResult, error) {
	client, tenant, err := c.client(tro)
	if err != nil {
		return public.AuthResult{}, err
	}
	var result public.AuthResult
	if c.o.DeviceCode != nil {
		result, err = c.byDeviceCode(ctx, client, tenant, tro)
	} else {
		settings := []public.AcquireInteractiveOption{public.WithClaims(tro.Claims), public.WithTenantID(tenant), public.WithLoginHint(c.o.LoginHint), public.WithRedirectURI(c.o.RedirectURL)}
		if c.o.OpenURL != nil {
			settings = append(settings, public.WithOpenURL(c.o.OpenURL))
		}
		result, err = client.AcquireTokenInteractive(ctx, tro.Scopes, settings...)
	}
	if err != nil {
		return public.AuthResult{}, c.callError("sign in", err)
	}
	if wanted := c.o.Account; wanted.HomeAccountID != "" && wanted.HomeAccountID != result.Account.HomeAccountID {
		return public.AuthResult{}, c.fail("sign in", fmt.Errorf("%s has signed in, and Options.Account is %s", shown(result.Account.PreferredUsername), shown(wanted.Username)),
			"Sign in with that account, or set another one.", nil)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account = accountOf(result.Account)
	return result, nil
}

func (c *Credential) byDeviceCode(ctx context.Context, client public.Client, tenant string, tro policy.TokenRequestOptions) (public.AuthResult, error) {
	code, err := client.AcquireTokenByDeviceCode(ctx, tro.Scopes, public.WithClaims(tro.Claims), public.WithTenantID(tenant))
	if err != nil {
		return public.AuthResult{}, err
	}
	if err := c.o.DeviceCode(ctx, code.Result); err != nil {
		return public.AuthResult{}, c.fail("sign in", err, "The function Options.DeviceCode of this program has failed.", nil)
	}
	return code.AuthenticationResult(ctx)
}

// client returns the MSAL client for a request, and its argument of WithTenantID.
func (c *Credential) client(tro policy.TokenRequestOptions) (client public.Client, tenant string, err error) {
	if len(tro.Scopes) == 0 {
		return client, "", c.fail("get token", errors.New("the request names no scope"), "Name a scope, such as https://management.azure.com/.default.", nil)
	}
	client = c.plain
	if tro.EnableCAE {
		client = c.cae
	}
	tenant = tro.TenantID
	if tenant == "" || tenant == c.tenant {
		return client, "", nil // MSAL refuses "organizations" here
	}
	allowed := func(t string) bool { return t == "*" || strings.EqualFold(t, tenant) }
	any := c.tenant == organizations && len(c.o.AdditionallyAllowedTenants) == 0
	if !isTenant(tenant) || !any && !slices.ContainsFunc(c.o.AdditionallyAllowedTenants, allowed) {
		return client, "", c.fail("get token", fmt.Errorf("tokens of tenant %s are not allowed", shown(tenant)), "Add it to Options.AdditionallyAllowedTenants.", nil)
	}
	return client, tenant, nil
}

func isTenant(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

func signInHelps(err error) bool {
	var e *tokenError
	return errors.As(err, &e) && e.wantsSignIn()
}

func accessToken(r public.AuthResult) azcore.AccessToken {
	return azcore.AccessToken{Token: r.AccessToken, ExpiresOn: r.ExpiresOn.UTC(), RefreshOn: r.Metadata.RefreshOn.UTC()}
}

func accountOf(a public.Account) persistence.Account {
	return persistence.Account{HomeAccountID: a.HomeAccountID, Environment: a.Environment, Username: a.PreferredUsername}
}

// cacheOnly is the key of a context's value: no request is to be made.
type cacheOnly struct{}

// transport makes MSAL's requests by a pipeline of the SDK.
type transport struct{ pipeline runtime.Pipeline }

// Do makes a request.
func (t transport) Do(r *http.Request) (*http.Response, error) {
	if r.Context().Value(cacheOnly{}) != nil {
		return nil, errNeedsNetwork
	}
	req, err := runtime.NewRequest(r.Context(), r.Method, r.URL.String())
	if err != nil {
		return nil, err
	}
	if r.Body != nil && r.Body != http.NoBody {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if err := req.SetBody(streaming.NopCloser(bytes.NewReader(body)), r.Header.Get("Content-Type")); err != nil {
			return nil, err
		}
	}
	for name, values := range r.Header {
		if _, there := req.Raw().Header[name]; !there {
			req.Raw().Header[name] = slices.Clone(values)
		}
	}
	resp, err := t.pipeline.Do(req)
	if err != nil {
		return nil, &networkError{err}
	}
	return resp, nil
}

// CloseIdleConnections does nothing: the connections are the pipeline's.
func (transport) CloseIdleConnections() {}

// networkError says that there was no answer. The SDK does not retry it.
type networkError struct{ error }

func (e *networkError) Unwrap() error { return e.error }
func (*networkError) NonRetriable()   {}

// sendOnce keeps the SDK from repeating a request whose answer was lost: it may have
// spent the refresh token. Answers such as 429 and 503 are retried.
type sendOnce struct{}

// Do makes a request.
func (sendOnce) Do(req *policy.Request) (*http.Response, error) {
	resp, err := req.Next()
	if err != nil && req.Raw().Method == http.MethodPost {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // the endpoint's address says nothing more
		}
		return nil, &networkError{err}
	}
	return resp, err
}
