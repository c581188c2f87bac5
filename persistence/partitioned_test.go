package persistence_test

// The partitioned Cache under the real confidential client of MSAL Go.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// rows is what the servers of a web app share: a row for each account.
type rows struct {
	mu     sync.Mutex
	of     map[string]*persistence.Memory
	around func(ctx context.Context, op string, call func() error) error // of every call; nil: none
}

func (r *rows) row(partition string) *persistence.Memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]*persistence.Memory{}
	}
	if r.of[partition] == nil {
		r.of[partition] = persistence.NewMemory()
	}
	return r.of[partition]
}

func (r *rows) open(_ context.Context, partition string) (persistence.Persistence, error) {
	row := struct{ persistence.Versioned }{r.row(partition)} // without a lock, as over a network
	if r.around != nil {
		return persistencetest.Intercept(row, r.around), nil
	}
	return row, nil
}

// stored returns the rows that hold something.
func (r *rows) stored(t *testing.T) map[string]string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	stored := map[string]string{}
	for partition, row := range r.of {
		if s := msalStored(t, row); s != "" {
			stored[partition] = s
		}
	}
	return stored
}

var silence = persistence.WithLogger(slog.New(slog.DiscardHandler))

// server is one process of the web app.
func (r *rows) server(t testing.TB, opts ...persistence.Option) *persistence.Partitioned {
	t.Helper()
	p, err := persistence.NewPartitioned(r.open, opts...)
	require.NoError(t, err)
	return p
}

const webRedirect = "http://localhost:1/signed-in"

var appScopes = []string{"https://graph.microsoft.com/.default"}

func webSignIn(t testing.TB, s *entratest.Server, c confidential.Client, u entratest.User) confidential.AuthResult {
	t.Helper()
	r, err := webTrySignIn(t.Context(), s, c, u)
	require.NoError(t, err)
	return r
}

// browsers has one HTTP client for each authority, so that 50 users at once do
// not need as many handshakes.
var browsers sync.Map

func browser(s *entratest.Server) *http.Client {
	c, ok := browsers.Load(s)
	if !ok {
		fresh := s.Client()
		fresh.Transport.(*http.Transport).MaxIdleConnsPerHost = 100
		c, _ = browsers.LoadOrStore(s, fresh)
	}
	return c.(*http.Client)
}

func webTrySignIn(ctx context.Context, s *entratest.Server, c confidential.Client, u entratest.User) (confidential.AuthResult, error) {
	to, err := c.AuthCodeURL(context.Background(), msalWeb, webRedirect, userRead)
	if err != nil {
		return confidential.AuthResult{}, err
	}
	code, err := entratest.Authorize(context.Background(), browser(s), to, u.Username)
	if err != nil {
		return confidential.AuthResult{}, err
	}
	return c.AcquireTokenByAuthCode(ctx, code, webRedirect, userRead)
}

// webSilent is what a request does: it finds the account by the id that the
// session has, and asks for a token.
func webSilent(c confidential.Client, u entratest.User, scopes []string) (confidential.AuthResult, error) {
	a, err := c.Account(context.Background(), u.HomeAccountID())
	if err != nil {
		return confidential.AuthResult{}, err
	}
	return c.AcquireTokenSilent(context.Background(), scopes, confidential.WithSilentAccount(a))
}

// naivePartitions is the obvious glue, the control: a miss is nothing to do.
type naivePartitions struct{ *rows }

func (n naivePartitions) Replace(ctx context.Context, u cache.Unmarshaler, h cache.ReplaceHints) error {
	return naive{n.row(h.PartitionKey)}.Replace(ctx, u, h)
}

func (n naivePartitions) Export(ctx context.Context, m cache.Marshaler, h cache.ExportHints) error {
	return naive{n.row(h.PartitionKey)}.Export(ctx, m, h)
}

func TestPartitionedSignInSurvivesRestart(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	r := new(rows)
	alice := webSignIn(t, s, msalConfidential(t, s, r.server(t)), entratest.Alice)
	bob := webSignIn(t, s, msalConfidential(t, s, r.server(t)), entratest.Bob)

	other := r.server(t)
	for u, was := range map[entratest.User]confidential.AuthResult{entratest.Alice: alice, entratest.Bob: bob} {
		again, err := webSilent(msalConfidential(t, s, other), u, userRead)
		require.NoError(t, err)
		require.Equal(t, was.AccessToken, again.AccessToken)
		_, err = webSilent(msalConfidential(t, s, other), u, mailRead)
		require.NoError(t, err, "the refresh token is there too")
	}
	stored := r.stored(t)
	require.Len(t, stored, 2)
	require.NotContains(t, stored[entratest.Alice.HomeAccountID()], bob.AccessToken)
	require.NotContains(t, stored[entratest.Bob.HomeAccountID()], alice.AccessToken)
	for _, row := range stored {
		require.NotContains(t, row, msalWebSecret)
	}
}

// TestPartitionedRefusesTheEmptyKey: RemoveAccount and an Account without an id
// name no account.
func TestPartitionedRefusesTheEmptyKey(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	r := new(rows)
	p := r.server(t)
	c := msalConfidential(t, s, p)
	alice := webSignIn(t, s, c, entratest.Alice)

	err := c.RemoveAccount(t.Context(), alice.Account)
	require.ErrorContains(t, err, "SignOut")
	_, err = c.Account(t.Context(), "")
	require.ErrorContains(t, err, "SignOut")
	require.ErrorContains(t, p.Export(t.Context(), new(client), cache.ExportHints{}), "SignOut")
	require.ErrorContains(t, p.SignOut(t.Context(), ""), "SignOut")
	again, err := webSilent(c, entratest.Alice, userRead)
	require.NoError(t, err, "nothing was harmed")
	require.Equal(t, alice.AccessToken, again.AccessToken)

	require.NoError(t, p.SignOut(t.Context(), alice.Account.HomeAccountID))
	require.NoError(t, p.SignOut(t.Context(), alice.Account.HomeAccountID), "nothing is there any more")
	require.Empty(t, r.stored(t))
	_, err = webSilent(c, entratest.Alice, userRead)
	require.Error(t, err, "what the client had in memory is gone too")
	webSignIn(t, s, c, entratest.Alice)
	require.Len(t, r.stored(t), 1)
}

// TestPartitionedMissEmptiesTheMemory: users take turns with one client, which
// has one memory for all.
func TestPartitionedMissEmptiesTheMemory(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	leaks := func(t *testing.T, r *rows, glue cache.ExportReplace) bool {
		c := msalConfidential(t, s, glue)
		alice := webSignIn(t, s, c, entratest.Alice)
		webSignIn(t, s, c, entratest.Bob) // his row is a miss
		return strings.Contains(r.stored(t)[entratest.Bob.HomeAccountID()], alice.AccessToken)
	}
	r := new(rows)
	require.False(t, leaks(t, r, r.server(t)))
	r = new(rows)
	require.True(t, leaks(t, r, naivePartitions{r}), "the control")
}

// alike is a store whose revisions are all the same.
type alike struct{ *persistence.Memory }

func (a alike) Revision(ctx context.Context) (string, error) {
	rev, err := a.Memory.Revision(ctx)
	if rev != "" {
		rev = "same"
	}
	return rev, err
}

func (a alike) LoadRevision(ctx context.Context) ([]byte, string, error) {
	data, _, err := a.Memory.LoadRevision(ctx)
	return data, "same", err
}

// TestPartitionedRemembersPartitionAndRevision: two rows that hold nothing, or
// that have one revision, do not pass for each other.
func TestPartitionedRemembersPartitionAndRevision(t *testing.T) {
	stores := map[string]alike{"a": {persistence.NewMemory()}, "b": {persistence.NewMemory()}, "x": {persistence.NewMemory()}, "y": {persistence.NewMemory()}}
	for id, row := range stores {
		if id < "x" {
			var c client
			c.signIn(id, "rt "+id, 1)
			data, err := c.Marshal()
			require.NoError(t, err)
			require.NoError(t, row.Save(ctx, data))
		}
	}
	p, err := persistence.NewPartitioned(func(_ context.Context, id string) (persistence.Persistence, error) { return stores[id], nil })
	require.NoError(t, err)
	c := new(client)
	replace := func(id string) { require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: id})) }
	for _, id := range []string{"a", "b", "a", "b"} {
		replace(id)
		require.Equal(t, "rt "+id, c.refreshToken(id))
		require.Equal(t, 1, c.keys("Account"))
	}
	before := c.unmarshals
	replace("b")
	require.Equal(t, before, c.unmarshals, "nothing is done where it is held already")
	replace("x")
	c.signIn("x", "not stored", 1)
	replace("y")
	require.Zero(t, c.keys("Account"))
	replace("x")
	require.Zero(t, c.keys("Account"))
}

// TestPartitionedKeepsOthersEntriesOut: should a memory ever hold two users,
// each one's tokens still stay out of the other's row.
func TestPartitionedKeepsOthersEntriesOut(t *testing.T) {
	var log bytes.Buffer
	r := new(rows)
	p := r.server(t, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	c := new(client)
	for range 2 {
		require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}))
		c.signIn("alice", "rt alice", 1)
		c.signIn("bob", planted, 1)
		c.set("AppMetadata", "meta", map[string]any{"client_id": "app"})
		require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: "alice"}))
		require.NotContains(t, r.stored(t)["alice"], "bob")
		require.NotContains(t, r.stored(t)["alice"], planted)
		require.Contains(t, r.stored(t)["alice"], "rt alice")
		require.Contains(t, r.stored(t)["alice"], "meta")
	}
	require.Equal(t, 1, strings.Count(log.String(), "another account"))
	require.NotContains(t, log.String(), planted)
}

// byValue is an in-memory cache without an identity.
type byValue struct{ *client }

func TestPartitionedTakesOnlyWhatItCanTellApart(t *testing.T) {
	p := new(rows).server(t)
	require.ErrorContains(t, p.Replace(ctx, byValue{new(client)}, cache.ReplaceHints{PartitionKey: "a"}), "pointer")
	require.ErrorContains(t, p.Export(ctx, byValue{new(client)}, cache.ExportHints{PartitionKey: "a"}), "pointer")
	require.Error(t, p.Replace(ctx, nil, cache.ReplaceHints{PartitionKey: "a"}))
	require.Error(t, p.Export(ctx, nil, cache.ExportHints{PartitionKey: "a"}))
}

func TestNewPartitionedRefuses(t *testing.T) {
	_, err := persistence.NewPartitioned(nil)
	require.ErrorContains(t, err, "open is nil")
	_, err = persistence.NewPartitioned(new(rows).open, persistence.WithTimeout(-1))
	require.ErrorContains(t, err, "not positive")

	failure := errors.New("no such shard")
	for name, test := range map[string]struct {
		store persistence.Persistence
		err   error
		want  string
	}{
		"its error":                {nil, failure, failure.Error()},
		"nothing":                  {nil, nil, "returned no Persistence"},
		"neither with nor without": {msalFile("x"), nil, "neither a Versioned nor a Locker"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := persistence.NewPartitioned(func(context.Context, string) (persistence.Persistence, error) { return test.store, test.err }, silence)
			require.NoError(t, err)
			c := new(client)
			c.signIn("bob", "rt", 1)
			require.ErrorContains(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}), test.want)
			require.Zero(t, c.keys("Account"), "but the last user's tokens are gone")
			require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: "alice"}))
			require.ErrorContains(t, p.SignOut(ctx, "alice"), test.want)
		})
	}
}

func TestPartitionedClientCredentials(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	r := new(rows)
	first, err := msalConfidential(t, s, r.server(t)).AcquireTokenByCredential(t.Context(), appScopes)
	require.NoError(t, err)
	c := msalConfidential(t, s, r.server(t))
	alice := webSignIn(t, s, c, entratest.Alice)
	again, err := c.AcquireTokenByCredential(t.Context(), appScopes)
	require.NoError(t, err)
	require.Equal(t, first.AccessToken, again.AccessToken)
	require.Equal(t, 1, s.Requests(entratest.GrantClientCredentials))
	stored := r.stored(t)
	require.Len(t, stored, 2)
	own := stored[fmt.Sprintf("%s_%s_AppTokenCache", msalWeb, entratest.Contoso)]
	require.Contains(t, own, first.AccessToken)
	require.NotContains(t, own, alice.AccessToken)
	require.NotContains(t, stored[entratest.Alice.HomeAccountID()], first.AccessToken)
}

// TestPartitionedOnBehalfOf: those tokens work, from memory, and neither get
// into a row nor empty one.
func TestPartitionedOnBehalfOf(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	assertion := msalSignIn(t, s, msalPublic(t, s, msalCache(t, persistence.NewMemory()), msalApp), entratest.Bob).AccessToken
	r := new(rows)
	c := msalConfidential(t, s, r.server(t))
	onBehalf := func() string {
		first, err := c.AcquireTokenOnBehalfOf(t.Context(), assertion, userRead)
		require.NoError(t, err)
		return first.AccessToken
	}
	token := onBehalf()
	require.Equal(t, token, onBehalf())
	require.Equal(t, 1, s.Requests(entratest.GrantOnBehalfOf), "the second comes from memory")
	require.Empty(t, r.stored(t))

	webSignIn(t, s, c, entratest.Alice)
	_, err := c.AcquireTokenByCredential(t.Context(), appScopes)
	require.NoError(t, err)
	before := r.stored(t)
	require.Len(t, before, 2)
	require.Equal(t, token, onBehalf())
	other, err := c.AcquireTokenOnBehalfOf(t.Context(), assertion, mailRead)
	require.NoError(t, err)
	require.Equal(t, before, r.stored(t))
	for _, row := range before {
		require.NotContains(t, row, token)
		require.NotContains(t, row, other.AccessToken)
	}
	_, err = webSilent(c, entratest.Alice, mailRead)
	require.NoError(t, err, "and the client goes on working")

	// The control: the obvious glue stores another memory in that place, and
	// then MSAL cannot read it.
	n := new(rows)
	c = msalConfidential(t, s, naivePartitions{n})
	onBehalf()
	require.Len(t, n.stored(t), 1)
	_, err = c.AcquireTokenOnBehalfOf(t.Context(), assertion, userRead)
	require.Error(t, err)
}

// TestPartitionedSignOutSticks signs a user out while another server is about
// to store a refresh of that account.
func TestPartitionedSignOutSticks(t *testing.T) {
	for name, sameServer := range map[string]bool{"another server": false, "the same server": true} {
		t.Run(name, func(t *testing.T) {
			for when, during := range map[string]string{
				"while the authority is asked": "",
				"before the second read":       "Revision",
				"before the save":              "SaveIf",
			} {
				t.Run(when, func(t *testing.T) {
					s := msalAuthority(t, entratest.Options{})
					r := new(rows)
					var signOut atomic.Pointer[func()]
					r.around = func(_ context.Context, op string, call func() error) error {
						if op == during {
							if f := signOut.Swap(nil); f != nil {
								(*f)()
							}
						}
						return call()
					}
					a := r.server(t)
					b := a
					if !sameServer {
						b = r.server(t)
					}
					webSignIn(t, s, msalConfidential(t, s, a), entratest.Alice)
					f := func() {
						if err := b.SignOut(context.Background(), entratest.Alice.HomeAccountID()); err != nil {
							t.Error(err)
						}
					}

					h := s.Hold(entratest.GrantRefreshToken)
					type result struct {
						r   confidential.AuthResult
						err error
					}
					c := msalConfidential(t, s, a)
					done := make(chan result, 1)
					go func() { r, err := webSilent(c, entratest.Alice, mailRead); done <- result{r, err} }()
					<-h.Arrived()
					if during == "" {
						f()
					} else {
						signOut.Store(&f)
					}
					h.Release()
					refreshed := <-done
					require.NoError(t, refreshed.err, "who asked for a token gets it")
					require.Nil(t, signOut.Load(), "the user was signed out")
					require.Empty(t, r.stored(t))
					_, err := webSilent(c, entratest.Alice, mailRead)
					require.Error(t, err, "nor does the client have it any more")

					webSignIn(t, s, msalConfidential(t, s, a), entratest.Alice)
					_, err = webSilent(msalConfidential(t, s, b), entratest.Alice, mailRead)
					require.NoError(t, err, "but the user may sign in again")
				})
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		s := msalAuthority(t, entratest.Options{})
		r := new(rows)
		c := msalConfidential(t, s, naivePartitions{r})
		webSignIn(t, s, c, entratest.Alice)
		h := s.Hold(entratest.GrantRefreshToken)
		done := make(chan error, 1)
		go func() { _, err := webSilent(c, entratest.Alice, mailRead); done <- err }()
		<-h.Arrived()
		require.NoError(t, r.row(entratest.Alice.HomeAccountID()).Delete(t.Context()))
		h.Release()
		require.NoError(t, <-done)
		require.NotEmpty(t, r.stored(t), "the refresh undid the sign-out")
	})
}

// failing makes saves, or all calls, fail on demand.
type failing struct {
	saves, all atomic.Bool
}

var errFull = errors.New("no space left on device")

func (f *failing) around(_ context.Context, op string, call func() error) error {
	if f.all.Load() || f.saves.Load() && (op == "SaveIf" || op == "DeleteIf" || op == "Delete") {
		return &persistence.Error{Op: "save", Backend: "test", Err: errFull}
	}
	return call()
}

// TestPartitionedTroubleCostsNoSignIn: the authority has issued tokens, and they
// cannot be stored. The client is gone with its request; the next one has them.
func TestPartitionedTroubleCostsNoSignIn(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	s.SetLifetime(time.Minute, 0) // so short that every silent sign-in refreshes
	var f failing
	r := &rows{around: f.around}
	var log bytes.Buffer
	p := r.server(t, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	silent := func() error { _, err := webSilent(msalConfidential(t, s, p), entratest.Alice, userRead); return err }

	f.saves.Store(true)
	webSignIn(t, s, msalConfidential(t, s, p), entratest.Alice)
	require.Empty(t, r.stored(t))
	for range 3 {
		require.NoError(t, silent())
	}
	require.Equal(t, 3, s.Requests(entratest.GrantRefreshToken))
	require.Zero(t, s.Reuses())
	require.Equal(t, 1, strings.Count(log.String(), errFull.Error()), "logged once:\n%s", log.String())
	for _, secret := range s.Issued() {
		require.NotContains(t, log.String(), secret)
	}
	require.Equal(t, 1, unsaved(p))

	f.saves.Store(false)
	s.SetLifetime(time.Hour, 0)
	_, err := msalConfidential(t, s, p).Account(t.Context(), entratest.Alice.HomeAccountID())
	require.NoError(t, err)
	require.Zero(t, unsaved(p), "the first Replace has stored them")
	_, err = webSilent(msalConfidential(t, s, r.server(t)), entratest.Alice, userRead)
	require.NoError(t, err)
	require.Zero(t, s.Reuses(), "another server finds the last refresh token")
}

func TestPartitionedTroubleAndSignOut(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	var f failing
	r := &rows{around: f.around}
	p, other := r.server(t, silence), r.server(t, silence)
	webSignIn(t, s, msalConfidential(t, s, p), entratest.Alice)
	f.saves.Store(true)
	_, err := webSilent(msalConfidential(t, s, p), entratest.Alice, mailRead)
	require.NoError(t, err)
	require.Equal(t, 1, unsaved(p))
	require.ErrorIs(t, p.SignOut(t.Context(), entratest.Alice.HomeAccountID()), errFull, "a sign-out that did not happen must not look as if it did")

	f.saves.Store(false)
	require.NoError(t, other.SignOut(t.Context(), entratest.Alice.HomeAccountID()))
	_, err = webSilent(msalConfidential(t, s, p), entratest.Alice, mailRead)
	require.Error(t, err, "signed out elsewhere is signed out")
	require.Empty(t, r.stored(t))
	require.Zero(t, unsaved(p))

	f.saves.Store(true)
	webSignIn(t, s, msalConfidential(t, s, p), entratest.Alice)
	f.saves.Store(false)
	require.NoError(t, p.SignOut(t.Context(), entratest.Alice.HomeAccountID()))
	_, err = webSilent(msalConfidential(t, s, p), entratest.Alice, userRead)
	require.Error(t, err, "nor does what was never stored come back")
	require.Empty(t, r.stored(t))
}

func TestPartitionedTroubleStrict(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	var f failing
	r := &rows{around: f.around}
	p := r.server(t, silence, persistence.WithStrict())
	c := msalConfidential(t, s, p)
	f.saves.Store(true)
	_, err := webTrySignIn(t.Context(), s, c, entratest.Alice)
	require.ErrorIs(t, err, errFull)
	f.saves.Store(false)
	_, err = webSilent(c, entratest.Alice, userRead)
	require.Error(t, err, "a sign-in that failed is none")
	require.Zero(t, unsaved(p))
	require.Empty(t, r.stored(t))
}

func TestPartitionedReadsThatFailAreReported(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	var f failing
	r := &rows{around: f.around}
	p := r.server(t, silence)
	c := msalConfidential(t, s, p)
	webSignIn(t, s, c, entratest.Alice)
	f.all.Store(true)
	_, err := webSilent(msalConfidential(t, s, p), entratest.Alice, userRead)
	require.ErrorIs(t, err, errFull)
	_, err = webSilent(c, entratest.Alice, userRead)
	require.NoError(t, err, "but this client has read it before")
	_, err = c.Account(t.Context(), entratest.Bob.HomeAccountID())
	require.ErrorIs(t, err, errFull)
	_, err = webSilent(c, entratest.Alice, userRead)
	require.ErrorIs(t, err, errFull, "and now it has not")
}

func unsaved(p *persistence.Partitioned) int { accounts, _ := p.Unsaved(); return accounts }

// TestPartitionedUnsavedIsBounded: beyond the limit, sign-ins fail instead.
func TestPartitionedUnsavedIsBounded(t *testing.T) {
	const limit = 100_000
	var f failing
	f.saves.Store(true)
	r := &rows{around: f.around}
	p := r.server(t, silence, persistence.WithMaxUnsaved(limit))
	signIn := func(id string) error {
		c := new(client)
		require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: id}))
		c.signIn(id, "rt", 1)
		return p.Export(ctx, c, cache.ExportHints{PartitionKey: id})
	}
	fill := func(prefix string) {
		t.Helper()
		for i := 0; ; i++ {
			if err := signIn(fmt.Sprint(prefix, i)); err != nil {
				require.ErrorContains(t, err, "too many")
				break
			}
			_, size := p.Unsaved()
			require.LessOrEqual(t, size, limit)
		}
	}
	fill("user")
	most, size := p.Unsaved()
	require.Greater(t, most, 50)
	require.Greater(t, size, limit*9/10)
	require.NoError(t, signIn("user1"), "who has a place keeps it")
	require.Equal(t, most, unsaved(p))
	f.saves.Store(false)
	require.NoError(t, signIn("one more"))
	require.NoError(t, signIn("user1"))
	require.Equal(t, most-1, unsaved(p))

	// The users of an earlier outage who do not come back keep no place for ever.
	f.saves.Store(true)
	fill("another")
	persistence.ForgetUnsavedAfter(t, -1)
	require.NoError(t, signIn("yet another"))
	require.Equal(t, 1, unsaved(p))
	f.saves.Store(false)
	left, err := p.Flush(ctx)
	require.NoError(t, err)
	require.Zero(t, left)
	_, size = p.Unsaved()
	require.Zero(t, size)
	_, err = persistence.NewPartitioned(r.open, persistence.WithMaxUnsaved(0))
	require.ErrorContains(t, err, "not positive")
}

// TestPartitionedRefusedElsewhere: what one in-memory cache could not store, and
// must not bring back, is taken over by another one that had no part in it.
func TestPartitionedRefusedElsewhere(t *testing.T) {
	var f failing
	var noReads atomic.Bool
	r := &rows{around: func(ctx context.Context, op string, call func() error) error {
		if noReads.Load() && (op == "Revision" || op == "LoadRevision") {
			return &persistence.Error{Op: "load", Backend: "test", Err: persistence.ErrUnavailable}
		}
		return f.around(ctx, op, call)
	}}
	p := r.server(t, silence)
	replace := func(c *client) {
		require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}))
	}
	account := func(c *client, environment, refreshToken string) {
		c.set("Account", "alice-"+environment, map[string]any{"home_account_id": "alice", "environment": environment})
		c.set("RefreshToken", "alice-"+environment, map[string]any{"home_account_id": "alice", "environment": environment, "secret": refreshToken})
	}
	here, there := new(client), new(client)
	replace(here)
	account(here, "e", "1")
	account(here, "f", "2")
	require.NoError(t, p.Export(ctx, here, cache.ExportHints{PartitionKey: "alice"}))
	replace(here) // a refresh begins
	elsewhere := new(client)
	account(elsewhere, "f", "2")
	data, err := elsewhere.Marshal()
	require.NoError(t, err)
	require.NoError(t, r.row("alice").Save(ctx, data)) // signed out of e
	replace(there)
	replace(here)
	account(here, "e", "3") // its answer
	account(here, "f", "5")
	f.saves.Store(true)
	require.NoError(t, p.Export(ctx, here, cache.ExportHints{PartitionKey: "alice"}))
	noReads.Store(true)
	replace(there)
	noReads.Store(false)
	f.saves.Store(false)
	account(there, "f", "4")
	require.NoError(t, p.Export(ctx, there, cache.ExportHints{PartitionKey: "alice"}))
	require.NotContains(t, r.stored(t)["alice"], `"environment":"e"`)
}

// TestPartitionedUnsavedIsGivenWithoutReading: what one request could not store is not
// lost where another one cannot read, and stores.
func TestPartitionedUnsavedIsGivenWithoutReading(t *testing.T) {
	var f failing
	r := &rows{around: f.around}
	p := r.server(t, silence)
	replace := func(c *client) {
		require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}))
	}
	export := func(c *client, key, secret string) {
		c.set("Account", "alice", map[string]any{"home_account_id": "alice", "environment": "e"})
		c.set("RefreshToken", key, map[string]any{"home_account_id": "alice", "environment": "e", "client_id": key, "secret": secret})
		require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: "alice"}))
	}
	here, there := new(client), new(client)
	replace(here)
	replace(there)
	f.saves.Store(true)
	export(here, "kept", "1")
	f.all.Store(true)
	replace(there)
	f.saves.Store(false)
	f.all.Store(false)
	export(there, "other", "2")
	_, err := p.Flush(ctx)
	require.NoError(t, err)
	require.Contains(t, r.stored(t)["alice"], `"kept"`)
	require.Contains(t, r.stored(t)["alice"], `"other"`)
}

// TestPartitionedNotKeptLeavesTheMemory: a sign-in whose caller was told that it failed,
// because its tokens could neither be stored nor kept, is not in the client's memory any
// more at its next call, also if that cannot read.
func TestPartitionedNotKeptLeavesTheMemory(t *testing.T) {
	for name, blank := range map[string]bool{"which has read": false, "which has never read": true} {
		t.Run(name, func(t *testing.T) {
			var f failing
			r := &rows{around: f.around}
			p := r.server(t, silence, persistence.WithMaxUnsaved(1))
			hint := cache.ReplaceHints{PartitionKey: "alice"}
			c := new(client)
			f.all.Store(blank)
			require.NoError(t, p.Replace(persistence.SigningIn(ctx), c, hint))
			c.set("Account", "alice", map[string]any{"home_account_id": "alice", "environment": "e"})
			f.all.Store(true)
			require.ErrorContains(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: "alice"}), "too many accounts")
			if blank { // nothing is known of the account
				require.Error(t, p.Replace(ctx, c, hint))
				require.NoError(t, p.Replace(persistence.SigningIn(ctx), c, hint))
			} else {
				require.NoError(t, p.Replace(ctx, c, hint))
			}
			data, err := c.Marshal()
			require.NoError(t, err)
			require.NotContains(t, string(data), "alice")
		})
	}
}

// TestPartitionedUnsavedOfTwoRequests: two requests of one user get a token
// each and can store neither. Both are stored later.
func TestPartitionedUnsavedOfTwoRequests(t *testing.T) {
	var f failing
	r := &rows{around: f.around}
	p := r.server(t, silence)
	hint := "alice"
	c := []*client{new(client), new(client)}
	for _, c := range c {
		require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: hint}))
	}
	f.saves.Store(true)
	for i, c := range c {
		c.set("AccessToken", fmt.Sprint("token", i), map[string]any{"home_account_id": hint, "secret": fmt.Sprint("at", i)})
		require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: hint}))
	}
	f.saves.Store(false)
	next := new(client)
	require.NoError(t, p.Replace(ctx, next, cache.ReplaceHints{PartitionKey: hint}))
	require.Equal(t, 2, next.keys("AccessToken"))
	require.Contains(t, r.stored(t)[hint], "at0")
	require.Contains(t, r.stored(t)[hint], "at1")
	require.Zero(t, unsaved(p))
}

// TestPartitionedCancelledExportIsKept: a browser that goes away while a refresh
// is stored does not cost the user the new refresh token.
func TestPartitionedCancelledExportIsKept(t *testing.T) {
	r := new(rows)
	canceled, cancel := context.WithCancel(ctx)
	r.around = func(_ context.Context, op string, call func() error) error {
		if op == "SaveIf" && canceled.Err() == nil {
			cancel()
			return &persistence.Error{Op: "save", Backend: "test", Err: canceled.Err()}
		}
		return call()
	}
	p := r.server(t, silence)
	c := new(client)
	require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}))
	c.signIn("alice", "rt", 1)
	require.ErrorIs(t, p.Export(canceled, c, cache.ExportHints{PartitionKey: "alice"}), context.Canceled)
	require.NoError(t, p.Replace(ctx, new(client), cache.ReplaceHints{PartitionKey: "alice"}))
	require.Contains(t, r.stored(t)["alice"], "rt")
}

// TestPartitionedLosesNoUpdate: two servers add 25 tokens each, from 8 requests
// at once, to one account.
func TestPartitionedLosesNoUpdate(t *testing.T) {
	const requests, each = 8, 25
	r := new(rows)
	servers := []*persistence.Partitioned{r.server(t), r.server(t)}
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			for j := range each {
				c := new(client)
				if err := servers[i%2].Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}); err != nil {
					t.Error(err)
				}
				c.set("AccessToken", fmt.Sprintf("token %d %d", i, j), map[string]any{"home_account_id": "alice", "secret": "at"})
				if err := servers[i%2].Export(ctx, c, cache.ExportHints{PartitionKey: "alice"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c := new(client)
	require.NoError(t, servers[0].Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}))
	require.Equal(t, requests*each, c.keys("AccessToken"))
}

// TestPartitionedConcurrentUsers: 50 users at once, on two servers, with a
// client for each request. Nobody fails and no row has a byte of another user.
// Where they share one client, requests may fail, but still no byte strays.
func TestPartitionedConcurrentUsers(t *testing.T) {
	const users, requests = 50, 2
	var all []entratest.User
	for i := range users {
		all = append(all, entratest.User{Username: fmt.Sprintf("user%d@contoso.example", i), Name: fmt.Sprint("User ", i),
			ID: fmt.Sprintf("d0000000-0000-4000-8000-%012d", i), Tenant: entratest.Contoso})
	}
	for _, shared := range []bool{false, true} {
		t.Run(map[bool]string{false: "a client for each request", true: "one client for all"}[shared], func(t *testing.T) {
			s := msalAuthority(t, entratest.Options{Users: all, AllowReuse: true})
			r := new(rows)
			servers := []*persistence.Partitioned{r.server(t), r.server(t)}
			one := msalConfidential(t, s, servers[0])
			clientFor := func(i int) confidential.Client {
				if shared {
					return one
				}
				cred, _ := confidential.NewCredFromSecret(msalWebSecret)
				c, err := confidential.New(entratest.Authority(entratest.Contoso), msalWeb, cred, confidential.WithHTTPClient(browser(s)),
					confidential.WithCache(servers[i%2]), confidential.WithInstanceDiscovery(false))
				if err != nil {
					t.Error(err)
				}
				return c
			}
			var mu sync.Mutex
			tokens := map[string][]string{} // by user
			var wg sync.WaitGroup
			for i, u := range all {
				wg.Go(func() {
					got := func(a confidential.AuthResult, err error) {
						switch {
						case err == nil:
							// MSAL may find the token and, a moment later, not the account.
							if id := a.Account.HomeAccountID; id != u.HomeAccountID() && !(shared && id == "") {
								t.Errorf("%s got a token of %s", u.Username, a.Account.PreferredUsername)
							}
							mu.Lock()
							tokens[u.HomeAccountID()] = append(tokens[u.HomeAccountID()], a.AccessToken)
							mu.Unlock()
						case !shared:
							t.Error(err)
						}
					}
					got(webTrySignIn(context.Background(), s, clientFor(i), u))
					var own sync.WaitGroup
					for j := range requests {
						own.Go(func() { got(webSilent(clientFor(i+j), u, [][]string{userRead, mailRead}[j])) })
					}
					own.Wait()
				})
			}
			wg.Wait()
			stored := r.stored(t)
			require.Len(t, stored, users)
			for id, row := range stored {
				for _, u := range all {
					if u.HomeAccountID() == id {
						require.Contains(t, row, u.Username)
						continue
					}
					require.NotContains(t, row, u.ID)
					for _, token := range tokens[u.HomeAccountID()] {
						require.False(t, strings.Contains(row, token), "a token of %s in another's row", u.Username)
					}
				}
				if !shared {
					require.Contains(t, row, tokens[id][0])
				}
			}
		})
	}
}

// TestPartitionedDoesNotGrow: a client for each request leaves nothing behind.
func TestPartitionedDoesNotGrow(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	r := new(rows)
	p := r.server(t)
	webSignIn(t, s, msalConfidential(t, s, p), entratest.Alice)
	kept := msalConfidential(t, s, p)
	for range 200 {
		_, err := msalConfidential(t, s, p).Account(t.Context(), entratest.Alice.HomeAccountID())
		require.NoError(t, err)
	}
	_, err := kept.Account(t.Context(), entratest.Alice.HomeAccountID())
	require.NoError(t, err)
	require.Greater(t, persistence.RememberedOf(p), 0)
	require.Eventually(t, func() bool { runtime.GC(); return persistence.RememberedOf(p) == 1 }, time.Minute, time.Millisecond)
	runtime.KeepAlive(kept)
}

// TestPartitionedClientNeedsNoNetwork: a client that was told to leave out
// instance discovery serves a warm request from the store alone.
func TestPartitionedClientNeedsNoNetwork(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	p := new(rows).server(t)
	webSignIn(t, s, msalConfidential(t, s, p), entratest.Alice)
	ask := func(opts ...confidential.Option) int {
		cred, err := confidential.NewCredFromSecret(msalWebSecret)
		require.NoError(t, err)
		before := s.Requests("instance") + s.Requests("openid-configuration")
		for range 3 {
			c, err := confidential.New(entratest.Authority(entratest.Contoso), msalWeb, cred,
				append(opts, confidential.WithHTTPClient(s.Client()), confidential.WithCache(p))...)
			require.NoError(t, err)
			_, err = webSilent(c, entratest.Alice, userRead)
			require.NoError(t, err)
		}
		return s.Requests("instance") + s.Requests("openid-configuration") - before
	}
	require.Zero(t, ask(confidential.WithInstanceDiscovery(false)))
	require.Equal(t, 3, ask(), "the control")
}

// BenchmarkPartitionedRequest is a request that finds a valid token: a new
// client, the row read, the token found in it.
func BenchmarkPartitionedRequest(b *testing.B) {
	s, err := entratest.Start(entratest.Options{Secrets: map[string]string{msalWeb: msalWebSecret}})
	require.NoError(b, err)
	defer s.Close()
	p := new(rows).server(b)
	cred, err := confidential.NewCredFromSecret(msalWebSecret)
	require.NoError(b, err)
	request := func() (confidential.Client, error) {
		return confidential.New(entratest.Authority(entratest.Contoso), msalWeb, cred, confidential.WithHTTPClient(browser(s)),
			confidential.WithCache(p), confidential.WithInstanceDiscovery(false))
	}
	c, err := request()
	require.NoError(b, err)
	webSignIn(b, s, c, entratest.Alice)
	b.ReportAllocs()
	for b.Loop() {
		c, err := request()
		if err == nil {
			_, err = webSilent(c, entratest.Alice, userRead)
		}
		require.NoError(b, err)
	}
}

// BenchmarkPartitionedReplace is a Replace of an in-memory cache that is up to
// date.
func BenchmarkPartitionedReplace(b *testing.B) {
	p := new(rows).server(b)
	c := new(client)
	hint := cache.ReplaceHints{PartitionKey: "alice"}
	require.NoError(b, p.Replace(ctx, c, hint))
	c.signIn("alice", "rt", 1)
	require.NoError(b, p.Export(ctx, c, cache.ExportHints(hint)))
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, p.Replace(ctx, c, hint))
	}
}
