package persistence_test

// The Cache under the real MSAL Go clients, which talk over real sockets to an
// authority that rotates refresh tokens and ends a sign-in when one is used
// twice. So whatever the Cache loses, a later refresh finds out.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

const (
	msalApp       = "11111111-0000-4000-8000-000000000001"
	msalOtherApp  = "11111111-0000-4000-8000-000000000002"
	msalWeb       = "22222222-0000-4000-8000-000000000001"
	msalWebSecret = "planted-client-secret"
)

var (
	userRead = []string{"User.Read"}
	mailRead = []string{"Mail.Read"}
)

func msalAuthority(t *testing.T, o entratest.Options) *entratest.Server {
	t.Helper()
	o.Secrets = map[string]string{msalWeb: msalWebSecret}
	s, err := entratest.Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func msalCache(t *testing.T, p persistence.Persistence, opts ...persistence.Option) *persistence.Cache {
	t.Helper()
	c, err := persistence.New(p, opts...)
	require.NoError(t, err)
	return c
}

func msalPublic(t *testing.T, s *entratest.Server, c cache.ExportReplace, clientID string) public.Client {
	t.Helper()
	client, err := public.New(clientID, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client()), public.WithCache(c))
	require.NoError(t, err)
	return client
}

func msalConfidential(t *testing.T, s *entratest.Server, c cache.ExportReplace) confidential.Client {
	t.Helper()
	cred, err := confidential.NewCredFromSecret(msalWebSecret)
	require.NoError(t, err)
	client, err := confidential.New(entratest.Authority(entratest.Contoso), msalWeb, cred, confidential.WithHTTPClient(s.Client()), confidential.WithCache(c))
	require.NoError(t, err)
	return client
}

func msalSignIn(t *testing.T, s *entratest.Server, c public.Client, u entratest.User) public.AuthResult {
	t.Helper()
	r, err := msalTrySignIn(t, s, c, u)
	require.NoError(t, err)
	return r
}

func msalTrySignIn(t *testing.T, s *entratest.Server, c public.Client, u entratest.User) (public.AuthResult, error) {
	t.Helper()
	dc, err := c.AcquireTokenByDeviceCode(t.Context(), userRead)
	require.NoError(t, err)
	require.NoError(t, entratest.Approve(t.Context(), s.Client(), dc.Result.VerificationURL, dc.Result.UserCode, u.Username))
	return dc.AuthenticationResult(t.Context())
}

func msalSilent(c public.Client, a public.Account, scopes []string) (public.AuthResult, error) {
	return c.AcquireTokenSilent(context.Background(), scopes, public.WithSilentAccount(a))
}

func msalAccounts(t *testing.T, c public.Client) (ids []string) {
	t.Helper()
	accounts, err := c.Accounts(t.Context())
	require.NoError(t, err)
	for _, a := range accounts {
		ids = append(ids, a.HomeAccountID)
	}
	return ids
}

// msalStored returns what is stored, "" for nothing.
func msalStored(t *testing.T, p persistence.Persistence) string {
	t.Helper()
	b, err := p.Load(t.Context())
	if errors.Is(err, persistence.ErrNotFound) {
		return ""
	}
	require.NoError(t, err)
	return string(b)
}

// naive is the obvious glue, the control: it loads for every Replace and saves
// for every Export.
type naive struct{ p persistence.Persistence }

func (n naive) Replace(ctx context.Context, u cache.Unmarshaler, _ cache.ReplaceHints) error {
	b, err := n.p.Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return u.Unmarshal(b)
}

func (n naive) Export(ctx context.Context, m cache.Marshaler, _ cache.ExportHints) error {
	b, err := m.Marshal()
	if err != nil {
		return err
	}
	return n.p.Save(ctx, b)
}

// counting counts the Unmarshals of each in-memory cache, and passes for the
// same one every time.
type counting struct {
	cache.ExportReplace
	n    atomic.Int64
	mu   sync.Mutex
	seen map[any]*countingSerializer
}

type countingSerializer struct {
	cache.Serializer
	n *atomic.Int64
}

func (c *countingSerializer) Unmarshal(b []byte) error { c.n.Add(1); return c.Serializer.Unmarshal(b) }

func (c *counting) of(v any) *countingSerializer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[any]*countingSerializer{}
	}
	if c.seen[v] == nil {
		c.seen[v] = &countingSerializer{v.(cache.Serializer), &c.n}
	}
	return c.seen[v]
}

func (c *counting) Replace(ctx context.Context, u cache.Unmarshaler, h cache.ReplaceHints) error {
	return c.ExportReplace.Replace(ctx, c.of(u), h)
}

func (c *counting) Export(ctx context.Context, m cache.Marshaler, h cache.ExportHints) error {
	return c.ExportReplace.Export(ctx, c.of(m), h)
}

func TestMSALSignInSurvivesRestart(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	p := persistence.NewMemory()
	r := msalSignIn(t, s, msalPublic(t, s, msalCache(t, p), msalApp), entratest.Alice)

	restarted := msalPublic(t, s, msalCache(t, p), msalApp)
	require.Equal(t, []string{entratest.Alice.HomeAccountID()}, msalAccounts(t, restarted))
	again, err := msalSilent(restarted, r.Account, userRead)
	require.NoError(t, err)
	require.Equal(t, r.AccessToken, again.AccessToken)
	require.Zero(t, s.Requests(entratest.GrantRefreshToken))
	_, err = msalSilent(restarted, r.Account, mailRead)
	require.NoError(t, err, "the refresh token is there too")

	elsewhere := msalPublic(t, s, msalCache(t, persistence.NewMemory()), msalApp)
	require.Empty(t, msalAccounts(t, elsewhere))
}

func TestMSALClientSeesWhatAnotherStored(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	p := persistence.NewMemory()
	running := msalPublic(t, s, msalCache(t, p), msalApp)
	require.Empty(t, msalAccounts(t, running))
	r := msalSignIn(t, s, msalPublic(t, s, msalCache(t, p), msalApp), entratest.Alice)
	require.Equal(t, []string{entratest.Alice.HomeAccountID()}, msalAccounts(t, running))
	_, err := msalSilent(running, r.Account, userRead)
	require.NoError(t, err)
	require.Zero(t, s.Requests(entratest.GrantRefreshToken))
}

// TestMSALRotation refreshes in turn with clients of which each has the other's
// newer refresh token only through the storage.
func TestMSALRotation(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	s.SetLifetime(time.Minute, 0) // so short that every silent sign-in refreshes
	p := persistence.NewMemory()
	clients := []public.Client{msalPublic(t, s, msalCache(t, p), msalApp), msalPublic(t, s, msalCache(t, p), msalApp)}
	r := msalSignIn(t, s, clients[0], entratest.Alice)
	for i := range 6 {
		_, err := msalSilent(clients[i%2], r.Account, userRead)
		require.NoError(t, err)
	}
	require.Equal(t, 6, s.Requests(entratest.GrantRefreshToken))
	require.Zero(t, s.Reuses())

	// The control: a client that did not see the last refresh.
	old := persistence.NewMemory()
	require.NoError(t, old.Save(t.Context(), []byte(msalStored(t, p))))
	_, err := msalSilent(clients[0], r.Account, userRead)
	require.NoError(t, err)
	_, err = msalSilent(msalPublic(t, s, msalCache(t, old), msalApp), r.Account, userRead)
	require.Error(t, err)
	require.Equal(t, 1, s.Reuses())
}

// TestMSALProactiveRefresh: where the authority says refresh_in, MSAL refreshes
// a token that is still valid.
func TestMSALProactiveRefresh(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	p := persistence.NewMemory()
	one, two := msalPublic(t, s, msalCache(t, p), msalApp), msalPublic(t, s, msalCache(t, p), msalApp)
	s.SetLifetime(time.Hour, time.Nanosecond)
	r := msalSignIn(t, s, one, entratest.Alice)
	require.Len(t, msalAccounts(t, two), 1)
	s.SetLifetime(time.Hour, 0)
	refreshed, err := msalSilent(one, r.Account, userRead)
	require.NoError(t, err)
	require.NotEqual(t, r.AccessToken, refreshed.AccessToken)
	again, err := msalSilent(two, r.Account, userRead)
	require.NoError(t, err)
	require.Equal(t, refreshed.AccessToken, again.AccessToken)
	require.Equal(t, 1, s.Requests(entratest.GrantRefreshToken))
}

func TestMSALTwoClientsOnOneCache(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	p := persistence.NewMemory()
	c := msalCache(t, p)
	one, two := msalPublic(t, s, c, msalApp), msalPublic(t, s, c, msalOtherApp)
	alice := msalSignIn(t, s, one, entratest.Alice)
	bob := msalSignIn(t, s, two, entratest.Bob)
	carol := msalSignIn(t, s, one, entratest.Carol)
	require.ElementsMatch(t, []string{entratest.Alice.HomeAccountID(), entratest.Bob.HomeAccountID(), entratest.Carol.HomeAccountID()}, msalAccounts(t, two))
	for _, tc := range []struct {
		client public.Client
		r      public.AuthResult
	}{{one, alice}, {two, bob}, {one, carol}} {
		r, err := msalSilent(tc.client, tc.r.Account, userRead)
		require.NoError(t, err)
		require.Equal(t, tc.r.AccessToken, r.AccessToken)
		_, err = msalSilent(tc.client, tc.r.Account, mailRead)
		require.NoError(t, err)
	}

	require.NoError(t, one.RemoveAccount(t.Context(), alice.Account))
	require.ElementsMatch(t, []string{entratest.Bob.HomeAccountID(), entratest.Carol.HomeAccountID()}, msalAccounts(t, two))
	require.NotContains(t, msalStored(t, p), alice.AccessToken)
	_, err := msalSilent(one, alice.Account, userRead)
	require.Error(t, err)
	_, err = msalSilent(two, bob.Account, mailRead)
	require.NoError(t, err)
}

// TestMSALRefreshInFlightDoesNotUndoSignOut holds a refresh while another
// client signs the account out. The control shows that the obvious glue brings
// the account back.
func TestMSALRefreshInFlightDoesNotUndoSignOut(t *testing.T) {
	for name, glue := range map[string]func(t *testing.T, p persistence.Persistence) (refresher, remover cache.ExportReplace){
		"one Cache": func(t *testing.T, p persistence.Persistence) (a, b cache.ExportReplace) {
			c := msalCache(t, p)
			return c, c
		},
		"two Caches": func(t *testing.T, p persistence.Persistence) (a, b cache.ExportReplace) {
			return msalCache(t, p), msalCache(t, p)
		},
		"control": func(t *testing.T, p persistence.Persistence) (a, b cache.ExportReplace) { return naive{p}, naive{p} },
	} {
		t.Run(name, func(t *testing.T) {
			s := msalAuthority(t, entratest.Options{})
			p := persistence.NewMemory()
			a, b := glue(t, p)
			refresher, remover := msalPublic(t, s, a, msalApp), msalPublic(t, s, b, msalApp)
			r := msalSignIn(t, s, refresher, entratest.Alice)
			msalSignIn(t, s, remover, entratest.Bob)

			h := s.Hold(entratest.GrantRefreshToken)
			type result struct {
				r   public.AuthResult
				err error
			}
			done := make(chan result, 1)
			go func() { r, err := msalSilent(refresher, r.Account, mailRead); done <- result{r, err} }()
			<-h.Arrived()
			require.NoError(t, remover.RemoveAccount(t.Context(), r.Account))
			h.Release()
			refreshed := <-done
			require.NoError(t, refreshed.err, "who asked for a token gets it")

			left := msalAccounts(t, msalPublic(t, s, msalCache(t, p), msalApp))
			if name == "control" {
				require.Contains(t, left, entratest.Alice.HomeAccountID())
				return
			}
			require.Equal(t, []string{entratest.Bob.HomeAccountID()}, left)
			require.NotContains(t, msalStored(t, p), refreshed.r.AccessToken)
			require.Equal(t, []string{entratest.Bob.HomeAccountID()}, msalAccounts(t, refresher))
			_, err := msalSilent(refresher, r.Account, mailRead)
			require.Error(t, err)

			r = msalSignIn(t, s, refresher, entratest.Alice)
			_, err = msalSilent(msalPublic(t, s, msalCache(t, p), msalApp), r.Account, mailRead)
			require.NoError(t, err, "but the user may sign in again")
			require.Zero(t, s.Reuses())
		})
	}
}

func TestMSALClientCredentials(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	p := persistence.NewMemory()
	app := []string{"https://graph.microsoft.com/.default"}
	first, err := msalConfidential(t, s, msalCache(t, p)).AcquireTokenByCredential(t.Context(), app)
	require.NoError(t, err)
	again, err := msalConfidential(t, s, msalCache(t, p)).AcquireTokenByCredential(t.Context(), app)
	require.NoError(t, err)
	require.Equal(t, first.AccessToken, again.AccessToken)
	require.Equal(t, 1, s.Requests(entratest.GrantClientCredentials))
	require.NotContains(t, msalStored(t, p), msalWebSecret)
}

func TestMSALAuthorizationCode(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	p := persistence.NewMemory()
	const redirect = "http://localhost:1/signed-in"
	account := func(u entratest.User) confidential.Account {
		c := msalConfidential(t, s, msalCache(t, p))
		to, err := c.AuthCodeURL(t.Context(), msalWeb, redirect, userRead)
		require.NoError(t, err)
		code, err := entratest.Authorize(t.Context(), s.Client(), to, u.Username)
		require.NoError(t, err)
		r, err := c.AcquireTokenByAuthCode(t.Context(), code, redirect, userRead)
		require.NoError(t, err)
		return r.Account
	}
	alice, bob := account(entratest.Alice), account(entratest.Bob)
	c := msalConfidential(t, s, msalCache(t, p))
	for _, a := range []confidential.Account{alice, bob} {
		found, err := c.Account(t.Context(), a.HomeAccountID)
		require.NoError(t, err)
		require.Equal(t, a.PreferredUsername, found.PreferredUsername)
		_, err = c.AcquireTokenSilent(t.Context(), userRead, confidential.WithSilentAccount(found))
		require.NoError(t, err)
	}
	require.Zero(t, s.Requests(entratest.GrantRefreshToken))
	_, err := c.AcquireTokenSilent(t.Context(), mailRead, confidential.WithSilentAccount(alice))
	require.NoError(t, err)
	require.Equal(t, 1, s.Requests(entratest.GrantRefreshToken))

	require.NoError(t, c.RemoveAccount(t.Context(), alice))
	c = msalConfidential(t, s, msalCache(t, p))
	_, err = c.AcquireTokenSilent(t.Context(), userRead, confidential.WithSilentAccount(alice))
	require.Error(t, err)
	_, err = c.AcquireTokenSilent(t.Context(), userRead, confidential.WithSilentAccount(bob))
	require.NoError(t, err)
}

// TestMSALInteractive signs in as a desktop program does, with a browser that
// comes back to a listener of MSAL's.
func TestMSALInteractive(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	p := persistence.NewMemory()
	r, err := msalPublic(t, s, msalCache(t, p), msalApp).AcquireTokenInteractive(t.Context(), userRead,
		public.WithOpenURL(entratest.Browser(s.Client(), entratest.Alice.Username)))
	require.NoError(t, err)
	_, err = msalSilent(msalPublic(t, s, msalCache(t, p), msalApp), r.Account, mailRead)
	require.NoError(t, err)
}

// TestMSALOnBehalfOf: MSAL's in-memory cache of on-behalf-of tokens does not
// take the shared format, so they stay in memory. What else is stored must not
// suffer from it, and no such token may get into the storage.
func TestMSALOnBehalfOf(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	user := msalSignIn(t, s, msalPublic(t, s, msalCache(t, persistence.NewMemory()), msalApp), entratest.Alice)
	for name, before := range map[string]func(c confidential.Client) error{
		"nothing stored": func(confidential.Client) error { return nil },
		"an app's tokens": func(c confidential.Client) error {
			_, err := c.AcquireTokenByCredential(t.Context(), []string{"https://graph.microsoft.com/.default"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := persistence.NewMemory()
			require.NoError(t, before(msalConfidential(t, s, msalCache(t, p))))
			was := msalStored(t, p)

			api := msalConfidential(t, s, msalCache(t, p))
			requests := s.Requests(entratest.GrantOnBehalfOf)
			first, err := api.AcquireTokenOnBehalfOf(t.Context(), user.AccessToken, userRead)
			require.NoError(t, err)
			again, err := api.AcquireTokenOnBehalfOf(t.Context(), user.AccessToken, userRead)
			require.NoError(t, err)
			require.Equal(t, first.AccessToken, again.AccessToken)
			require.Equal(t, requests+1, s.Requests(entratest.GrantOnBehalfOf), "the second comes from memory")
			_, err = api.AcquireTokenOnBehalfOf(t.Context(), user.AccessToken, mailRead)
			require.NoError(t, err)

			require.Equal(t, was, msalStored(t, p))
			require.NoError(t, before(api), "and the client goes on working")
			stored := msalStored(t, p)
			require.NotContains(t, stored, first.AccessToken)
			require.NotContains(t, stored, "user_assertion_hash")
		})
	}
}

func TestMSALWarmSilentDoesNotParse(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	memory := persistence.NewMemory()
	var loads atomic.Int64
	p := persistencetest.Intercept(memory, func(_ context.Context, op string, call func() error) error {
		if op == "Load" || op == "LoadRevision" {
			loads.Add(1)
		}
		return call()
	})
	warm := func(glue cache.ExportReplace) (unmarshals int64) {
		counted := &counting{ExportReplace: glue}
		c := msalPublic(t, s, counted, msalApp)
		r := msalSignIn(t, s, c, entratest.Alice)
		_, err := msalSilent(c, r.Account, userRead)
		require.NoError(t, err)
		before := counted.n.Load()
		loads.Store(0)
		for range 100 {
			_, err := msalSilent(c, r.Account, userRead)
			require.NoError(t, err)
			require.Len(t, msalAccounts(t, c), 1)
		}
		return counted.n.Load() - before
	}
	require.Zero(t, warm(msalCache(t, p)))
	require.Zero(t, loads.Load())
	require.EqualValues(t, 200, warm(naive{p}), "the control")
	require.EqualValues(t, 200, loads.Load())
}

// TestMSALStorageFailureAfterRefresh: the authority has spent the old refresh
// token and issued a new one, and the storage fails. The new one must not be
// lost.
func TestMSALStorageFailureAfterRefresh(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	s.SetLifetime(time.Minute, 0)
	memory := persistence.NewMemory()
	var failing atomic.Bool
	p := persistencetest.Intercept(memory, func(_ context.Context, op string, call func() error) error {
		if failing.Load() && op == "SaveIf" {
			return &persistence.Error{Op: "save", Backend: "memory", Err: errors.New("no space left on device")}
		}
		return call()
	})
	var log bytes.Buffer
	lenient := msalCache(t, p, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	c := msalPublic(t, s, lenient, msalApp)
	r := msalSignIn(t, s, c, entratest.Alice)

	failing.Store(true)
	for range 3 {
		_, err := msalSilent(c, r.Account, userRead)
		require.NoError(t, err)
	}
	require.Equal(t, 3, s.Requests(entratest.GrantRefreshToken))
	require.Zero(t, s.Reuses())
	require.Equal(t, 1, strings.Count(log.String(), "no space left on device"), "logged once:\n%s", log.String())
	for _, secret := range s.Issued() {
		require.NotContains(t, log.String(), secret)
	}

	// A client that starts now has what was stored last, which is spent.
	// That is the loss that no library can mend; so another account shows that
	// the storage is merged when it is back.
	failing.Store(false)
	bob := msalSignIn(t, s, msalPublic(t, s, msalCache(t, p), msalApp), entratest.Bob)
	_, err := msalSilent(c, r.Account, userRead)
	require.NoError(t, err)
	restarted := msalPublic(t, s, msalCache(t, p), msalApp)
	for _, a := range []public.Account{r.Account, bob.Account} {
		_, err = msalSilent(restarted, a, userRead)
		require.NoError(t, err)
	}
	require.Zero(t, s.Reuses())

	strict := msalPublic(t, s, msalCache(t, p, persistence.WithStrict()), msalApp)
	failing.Store(true)
	_, err = msalSilent(strict, bob.Account, userRead)
	require.ErrorContains(t, err, "no space left on device")
	_, err = msalTrySignIn(t, s, strict, entratest.Carol)
	require.ErrorContains(t, err, "no space left on device")
}

// TestMSALStorageFailureAfterSignIn: a user who has just gone through a browser
// is signed in, if only for as long as the program runs.
func TestMSALStorageFailureAfterSignIn(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	failure := errors.New("no space left on device")
	p := persistencetest.Faulty(persistence.NewMemory(), persistencetest.Fault{Op: "SaveIf", Call: 1, Err: failure})
	quiet := persistence.WithLogger(slog.New(slog.DiscardHandler))
	c := msalPublic(t, s, msalCache(t, p, quiet), msalApp)
	r := msalSignIn(t, s, c, entratest.Alice)
	require.Empty(t, msalStored(t, p))
	require.Equal(t, []string{entratest.Alice.HomeAccountID()}, msalAccounts(t, c))
	_, err := msalSilent(c, r.Account, userRead)
	require.NoError(t, err)
	_, err = msalSilent(c, r.Account, mailRead) // the next Export stores it all
	require.NoError(t, err)
	require.Equal(t, []string{entratest.Alice.HomeAccountID()}, msalAccounts(t, msalPublic(t, s, msalCache(t, p), msalApp)))

	failed := persistencetest.Faulty(persistence.NewMemory(), persistencetest.Fault{Op: "Save", Err: failure})
	_, err = msalTrySignIn(t, s, msalPublic(t, s, naive{failed}, msalApp), entratest.Alice)
	require.Error(t, err, "the control: the obvious glue loses the sign-in")
}

func TestMSALFailedSignOutIsReported(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	memory := persistence.NewMemory()
	c := msalPublic(t, s, msalCache(t, memory), msalApp)
	r := msalSignIn(t, s, c, entratest.Alice)

	full := errors.New("no space left on device")
	p := persistencetest.Faulty(memory, persistencetest.Fault{Op: "SaveIf", Call: 1, Err: full}, persistencetest.Fault{Op: "DeleteIf", Call: 1, Err: full})
	c = msalPublic(t, s, msalCache(t, p, persistence.WithLogger(slog.New(slog.DiscardHandler))), msalApp)
	require.Len(t, msalAccounts(t, c), 1)
	err := c.RemoveAccount(t.Context(), r.Account)
	require.ErrorIs(t, err, full)
	for _, secret := range s.Issued() {
		require.NotContains(t, err.Error(), secret)
	}
	require.Contains(t, msalStored(t, memory), r.AccessToken)
	require.NoError(t, c.RemoveAccount(t.Context(), r.Account))
	require.NotContains(t, msalStored(t, memory), r.AccessToken)
	require.Empty(t, msalAccounts(t, msalPublic(t, s, msalCache(t, memory), msalApp)))
}

func TestMSALFirstReadThatFailsIsReported(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	memory := persistence.NewMemory()
	r := msalSignIn(t, s, msalPublic(t, s, msalCache(t, memory), msalApp), entratest.Alice)
	failing := persistencetest.Faulty(memory, persistencetest.Fault{Op: "LoadRevision", Call: 1, Err: persistence.ErrKeyringLocked})
	c := msalPublic(t, s, msalCache(t, failing), msalApp)
	_, err := c.Accounts(t.Context())
	require.ErrorIs(t, err, persistence.ErrKeyringLocked, "no accounts would mean: sign in again")
	_, err = msalSilent(c, r.Account, userRead)
	require.NoError(t, err, "the next read works")
}

// The class of a storage error can be told from what MSAL's calls return.
func TestMSALKeepsTheClassOfAnError(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	memory := persistence.NewMemory()
	r := msalSignIn(t, s, msalPublic(t, s, msalCache(t, memory), msalApp), entratest.Alice)
	for _, class := range []error{persistence.ErrUnavailable, persistence.ErrKeyringLocked, persistence.ErrCorrupt, persistence.ErrWrongKey,
		persistence.ErrKeyMissing, persistence.ErrUnsupportedVersion, persistence.ErrLockTimeout} {
		failing := persistencetest.Faulty(memory, persistencetest.Fault{Op: "LoadRevision", Call: 1, Err: class})
		_, err := msalSilent(msalPublic(t, s, msalCache(t, failing), msalApp), r.Account, userRead)
		require.ErrorIs(t, err, class)
	}
}

// A Cache keeps any bytes for Load and Update, also such as are no token cache.
func TestCacheKeepsAnyBytes(t *testing.T) {
	c := msalCache(t, persistence.NewMemory())
	for _, data := range [][]byte{[]byte("\x00\xff not JSON"), {}, []byte("{"), []byte("null\n")} {
		require.NoError(t, c.Update(t.Context(), func([]byte) ([]byte, error) { return data, nil }))
		got, err := c.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, data, got)
		require.NoError(t, c.Update(t.Context(), func(current []byte) ([]byte, error) {
			require.Equal(t, data, current)
			return nil, nil
		}))
	}
}

// TestMSALConcurrentClients: what many goroutines acquire at once on several
// Caches is all there afterwards.
func TestMSALConcurrentClients(t *testing.T) {
	s := msalAuthority(t, entratest.Options{AllowReuse: true})
	p := persistence.NewMemory()
	r := msalSignIn(t, s, msalPublic(t, s, msalCache(t, p), msalApp), entratest.Alice)
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	const clients, each = 4, 5
	scope := func(i, j int) []string { return []string{fmt.Sprintf("scope.%d.%d", i, j)} }
	for i := range clients {
		c := msalPublic(t, s, msalCache(t, p), msalApp)
		for j := range each {
			wg.Go(func() {
				if _, err := msalSilent(c, r.Account, scope(i, j)); err != nil {
					errs <- err
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	require.Equal(t, clients*each, s.Requests(entratest.GrantRefreshToken))
	c := msalPublic(t, s, msalCache(t, p), msalApp)
	for i := range clients {
		for j := range each {
			_, err := msalSilent(c, r.Account, scope(i, j))
			require.NoError(t, err)
		}
	}
	require.Equal(t, clients*each, s.Requests(entratest.GrantRefreshToken), "every token was kept")
}

// TestMSALExclusive: two clients find one access token expired. Under Exclusive
// the second waits, and finds what the first has got.
func TestMSALExclusive(t *testing.T) {
	for _, exclusive := range []bool{true, false} {
		t.Run(fmt.Sprint(exclusive), func(t *testing.T) {
			s := msalAuthority(t, entratest.Options{})
			p := persistence.NewMemory()
			caches := []*persistence.Cache{msalCache(t, p), msalCache(t, p)}
			var clients []public.Client
			for _, c := range caches {
				clients = append(clients, msalPublic(t, s, c, msalApp))
			}
			s.SetLifetime(time.Minute, 0)
			r := msalSignIn(t, s, clients[0], entratest.Alice)
			s.SetLifetime(time.Hour, 0)
			h := s.Hold(entratest.GrantRefreshToken)
			inside := make(chan struct{}, 2)
			silent := func(i int) error {
				fn := func(context.Context) error {
					inside <- struct{}{}
					_, err := msalSilent(clients[i], r.Account, userRead)
					return err
				}
				if exclusive {
					return caches[i].Exclusive(t.Context(), r.Account.HomeAccountID, fn)
				}
				return fn(t.Context())
			}
			first, second := make(chan error, 1), make(chan error, 1)
			go func() { first <- silent(0) }()
			<-h.Arrived()
			go func() { second <- silent(1) }()
			if !exclusive { // the control: the second goes ahead and is taken for a thief
				require.Error(t, <-second)
				require.Equal(t, 1, s.Reuses())
				h.Release()
				<-first
				return
			}
			h.Release()
			require.NoError(t, <-first)
			require.NoError(t, <-second)
			require.Len(t, inside, 2)
			require.Zero(t, s.Reuses())
			require.Equal(t, 1, s.Requests(entratest.GrantRefreshToken), "the second finds what the first has got")
		})
	}
}

// msalFile is the plainest backend: a file without revisions or a lock. It is
// replaced by securefile, since a mere os.Rename fails on Windows while another
// process reads the file.
type msalFile string

func (f msalFile) Load(context.Context) ([]byte, error) {
	b, _, err := securefile.Read(context.Background(), string(f), 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, persistence.ErrNotFound
	}
	return b, err
}

func (f msalFile) Save(_ context.Context, data []byte) error {
	_, err := securefile.Replace(context.Background(), string(f), data)
	return err
}

func (f msalFile) Delete(ctx context.Context) error { return securefile.Remove(ctx, string(f)) }

// TestMSALProcesses: processes that share one sign-in, each of which refreshes
// again and again, never spend one refresh token twice.
func TestMSALProcesses(t *testing.T) {
	const processes, refreshes = 4, 5
	path := filepath.Join(t.TempDir(), "cache.json")
	if p := os.Getenv("TOKENKEEP_MSAL_CHILD"); p != "" {
		msalChild(t, p, refreshes)
		return
	}
	s := msalAuthority(t, entratest.Options{})
	s.SetLifetime(time.Minute, 0)
	c := msalPublic(t, s, msalCache(t, msalFile(path), persistence.WithLockFile(path+".lock")), msalApp)
	r := msalSignIn(t, s, c, entratest.Alice)
	exe, err := os.Executable()
	require.NoError(t, err)
	var children []*exec.Cmd
	var outputs []*bytes.Buffer
	for range processes {
		child := exec.CommandContext(t.Context(), exe, "-test.run=^TestMSALProcesses$", "-test.v")
		child.Env = append(os.Environ(), "TOKENKEEP_MSAL_CHILD="+path, "TOKENKEEP_MSAL_AUTHORITY="+s.Endpoint())
		out := new(bytes.Buffer)
		child.Stdout, child.Stderr = out, out
		require.NoError(t, child.Start())
		children, outputs = append(children, child), append(outputs, out)
	}
	for i, child := range children {
		err := child.Wait()
		require.NoError(t, err, "%s", outputs[i])
		require.Contains(t, outputs[i].String(), fmt.Sprintf("refreshed %d times", refreshes))
		for _, secret := range s.Issued() {
			require.NotContains(t, outputs[i].String(), secret)
		}
	}
	require.Equal(t, processes*refreshes, s.Requests(entratest.GrantRefreshToken))
	require.Zero(t, s.Reuses())
	_, err = msalSilent(c, r.Account, userRead)
	require.NoError(t, err, "the parent finds the last refresh token")
	require.Zero(t, s.Reuses())
}

func msalChild(t *testing.T, path string, refreshes int) {
	client, err := entratest.NewClient(os.Getenv("TOKENKEEP_MSAL_AUTHORITY"))
	require.NoError(t, err)
	c := msalCache(t, msalFile(path), persistence.WithLockFile(path+".lock"))
	app, err := public.New(msalApp, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(client), public.WithCache(c))
	require.NoError(t, err)
	accounts, err := app.Accounts(t.Context())
	require.NoError(t, err)
	require.Len(t, accounts, 1)
	for range refreshes {
		err := c.Exclusive(t.Context(), accounts[0].HomeAccountID, func(context.Context) error {
			_, err := msalSilent(app, accounts[0], userRead)
			return err
		})
		require.NoError(t, err)
	}
	fmt.Printf("refreshed %d times\n", refreshes)
}
