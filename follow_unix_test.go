//go:build linux || darwin

package tokenkeep_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const (
	followed = "client-of-another-program"
	ours     = "client-of-this-program"
	scope    = "User.Read"
)

// neighbourhood is a machine with another program that keeps its tokens in a plain
// file.
type neighbourhood struct {
	*machine
	s    *entratest.Server
	path string
}

func newNeighbourhood(t *testing.T) *neighbourhood {
	m := newMachine(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // for the other program's lock
	t.Setenv("HOME", t.TempDir())
	s, err := entratest.Start(entratest.Options{Interval: -1, AllowReuse: true})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return &neighbourhood{m, s, filepath.Join(t.TempDir(), "cache.json")}
}

// there is the other program's cache.
func (n *neighbourhood) there() *persistence.Cache {
	n.t.Helper()
	store, err := interop.File(n.path, interop.Options{Clients: []string{followed}, Write: true})
	require.NoError(n.t, err)
	c, err := persistence.New(store, persistence.WithStrict())
	require.NoError(n.t, err)
	return c
}

func (n *neighbourhood) config() tokenkeep.Config {
	n.t.Helper()
	theirs, err := interop.File(n.path, interop.Options{Clients: []string{followed}})
	require.NoError(n.t, err)
	cfg := n.machine.config()
	cfg.Follow, cfg.Strict = []persistence.Neighbour{theirs}, true
	return cfg
}

// start is this program, started anew.
func (n *neighbourhood) start() *persistence.Cache {
	n.t.Helper()
	c, err := tokenkeep.Open(ctx, n.config())
	require.NoError(n.t, err)
	return c
}

func (n *neighbourhood) client(c *persistence.Cache, id string) public.Client {
	n.t.Helper()
	client, err := public.New(id, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(n.s.Client()), public.WithCache(c))
	require.NoError(n.t, err)
	return client
}

func (n *neighbourhood) signIn(c *persistence.Cache, id string, u entratest.User) string {
	n.t.Helper()
	r, err := n.s.SignIn(ctx, c, id, u, scope)
	require.NoError(n.t, err)
	return r.AccessToken
}

func (n *neighbourhood) accounts(client public.Client) []public.Account {
	n.t.Helper()
	all, err := client.Accounts(ctx)
	require.NoError(n.t, err)
	return all
}

// token gets a token of the only account with nobody asked.
func (n *neighbourhood) token(client public.Client, scopes ...string) string {
	n.t.Helper()
	all := n.accounts(client)
	require.Len(n.t, all, 1)
	r, err := client.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(all[0]))
	require.NoError(n.t, err)
	return r.AccessToken
}

// kept is what this program's own cache has.
func (n *neighbourhood) kept(c *persistence.Cache) string {
	n.t.Helper()
	data, err := c.Backend().Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		return ""
	}
	require.NoError(n.t, err)
	return string(data)
}

// seen is what the other program's folder looks like.
func (n *neighbourhood) seen() string {
	n.t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(filepath.Dir(n.path))
	require.NoError(n.t, err)
	for _, e := range entries {
		fi, err := e.Info()
		require.NoError(n.t, err)
		data, err := os.ReadFile(filepath.Join(filepath.Dir(n.path), e.Name()))
		require.NoError(n.t, err)
		b.WriteString(e.Name() + fi.Mode().String() + fi.ModTime().String() + string(data))
	}
	return b.String()
}

// A sign-in of the other program is one here. What a refresh here brings is kept in
// this program's own, encrypted cache; what comes of one over there is used here. A
// sign-out over there takes everything away.
func TestFollow(t *testing.T) {
	n := newNeighbourhood(t)
	there := n.there()
	first := n.signIn(there, followed, entratest.Alice)
	before := n.seen()

	c := n.start()
	client := n.client(c, followed)
	require.Equal(t, first, n.token(client, scope))
	require.NotContains(t, n.kept(c), "secret", "what they have is not kept twice")
	other := n.token(client, "Mail.Read") // a refresh
	require.Contains(t, n.kept(c), other)
	require.NotContains(t, n.kept(c), first)
	require.Equal(t, before, n.seen())
	for _, secret := range n.s.Issued() {
		for _, name := range n.files() {
			data, err := os.ReadFile(filepath.Join(n.dir, name))
			require.NoError(t, err)
			require.NotContains(t, string(data), secret)
		}
	}
	requests := n.s.Requests(entratest.GrantRefreshToken)
	require.Equal(t, other, n.token(n.client(n.start(), followed), "Mail.Read"), "after a restart")
	require.Equal(t, requests, n.s.Requests(entratest.GrantRefreshToken))

	// A refresh over there is used here, and what was kept is not shown over it.
	require.NoError(t, there.Update(ctx, entratest.Expire))
	again := n.token(n.client(there, followed), scope)
	require.NotEqual(t, first, again)
	require.Equal(t, again, n.token(client, scope))
	require.Equal(t, requests+1, n.s.Requests(entratest.GrantRefreshToken))

	theirs := n.client(there, followed)
	require.NoError(t, theirs.RemoveAccount(ctx, n.accounts(theirs)[0]))
	require.Empty(t, n.accounts(client))
	require.NotContains(t, n.kept(c), `"secret"`, "what was kept went with it")
	require.Empty(t, n.accounts(n.client(n.start(), followed)))

	n.signIn(there, followed, entratest.Alice)
	require.Len(t, n.accounts(client), 1)
}

// A sign-out here hides the account, also after a restart and when it is refreshed
// over there, until the user signs in again here. Nothing changes over there.
func TestFollowSignOutHere(t *testing.T) {
	for name, signOut := range map[string]func(n *neighbourhood, c *persistence.Cache){
		"RemoveAccount": func(n *neighbourhood, c *persistence.Cache) {
			client := n.client(c, followed)
			require.NoError(n.t, client.RemoveAccount(ctx, n.accounts(client)[0]))
		},
		"SignOut": func(n *neighbourhood, c *persistence.Cache) {
			a := n.accounts(n.client(c, followed))[0]
			require.NoError(n.t, c.SignOut(ctx, persistence.Account{HomeAccountID: a.HomeAccountID, Environment: a.Environment}))
		},
		"SignOutAll": func(n *neighbourhood, c *persistence.Cache) { require.NoError(n.t, c.SignOutAll(ctx)) },
		"Delete":     func(n *neighbourhood, c *persistence.Cache) { require.NoError(n.t, c.Delete(ctx)) },
	} {
		for _, refreshed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				n := newNeighbourhood(t)
				there := n.there()
				n.signIn(there, followed, entratest.Alice)
				c := n.start()
				client := n.client(c, followed)
				if refreshed {
					n.token(client, "Mail.Read")
				}
				before := n.seen()
				signOut(n, c)
				require.Empty(t, n.accounts(client))
				require.Equal(t, before, n.seen())
				require.NotContains(t, n.kept(c), `"secret"`)
				require.NoError(t, there.Update(ctx, entratest.Expire))
				n.token(n.client(there, followed), scope)
				require.Empty(t, n.accounts(client))
				require.Empty(t, n.accounts(n.client(n.start(), followed)))
				n.signIn(there, followed, entratest.Bob)
				require.Len(t, n.accounts(client), 1, "it hides nobody else")

				before = n.seen()
				n.signIn(c, followed, entratest.Alice)
				require.Len(t, n.accounts(client), 2)
				require.Len(t, n.accounts(n.client(n.start(), followed)), 2)
				require.Equal(t, before, n.seen())
				// That sign-in is this program's own.
				require.NoError(t, there.Delete(ctx))
				left := n.accounts(client)
				require.Len(t, left, 1)
				require.Equal(t, entratest.Alice.Username, left[0].PreferredUsername)
				require.NotEmpty(t, n.token(client, "Mail.Read"))
			})
		}
	}
}

// A sign-in of this program's own, of the same account, outlasts a sign-out over
// there: also if the other program's came first and has the Account entry.
func TestFollowKeepsOwnSignIn(t *testing.T) {
	for _, theirsFirst := range []bool{true, false} {
		n := newNeighbourhood(t)
		there, c := n.there(), n.start()
		if theirsFirst {
			n.signIn(there, followed, entratest.Alice)
		}
		n.signIn(c, ours, entratest.Alice)
		if !theirsFirst {
			n.signIn(there, followed, entratest.Alice)
		}
		n.token(n.client(c, followed), "Mail.Read")
		require.NoError(t, there.Delete(ctx))
		require.NotEmpty(t, n.token(n.client(n.start(), ours), "Files.Read"))
		all := n.accounts(n.client(c, followed)) // MSAL lists accounts of all clients
		require.Len(t, all, 1)
		_, err := n.client(c, followed).AcquireTokenSilent(ctx, []string{"Mail.Read"}, public.WithSilentAccount(all[0]))
		require.Error(t, err)
	}
}

// The rest of the front door goes on: the choice, Watch, Exclusive, Rotate, Remove.
func TestFollowBesideTheRest(t *testing.T) {
	n := newNeighbourhood(t)
	there, c := n.there(), n.start()
	n.signIn(c, ours, entratest.Bob)
	choice, ok := tokenkeep.ChoiceOf(c)
	require.True(t, ok)
	require.Equal(t, "encrypted", choice.InUse.Backend)
	require.Equal(t, choice.InUse, c.Describe())

	watching, end := context.WithCancel(ctx)
	changes := c.Watch(watching, 0)
	n.signIn(there, followed, entratest.Alice)
	change := <-changes
	require.Len(t, change.Added, 1)
	require.Equal(t, entratest.Alice.Username, change.Added[0].Username)
	require.NoError(t, there.Delete(ctx))
	for change = range changes {
		if len(change.Removed) > 0 {
			break
		}
	}
	require.Len(t, change.Accounts, 1)
	end()
	for range changes { // until it has ended
	}

	n.signIn(there, followed, entratest.Alice)
	require.NoError(t, c.Exclusive(ctx, "x", func(context.Context) error { return nil }))
	require.NoError(t, tokenkeep.Rotate(ctx, n.config()))
	client := n.client(c, followed)
	require.Len(t, n.accounts(client), 2)
	for _, a := range n.accounts(client) {
		require.NoError(t, client.RemoveAccount(ctx, a))
	}
	before := n.seen()
	require.NoError(t, tokenkeep.Remove(ctx, n.config()))
	require.Empty(t, n.files())
	require.Equal(t, before, n.seen())
	require.Len(t, n.accounts(n.client(n.start(), followed)), 1, "Remove forgets what was hidden")
}

// A neighbour is no reason to keep anything in plain text, and nothing that is
// stored already.
func TestFollowIsNoPermission(t *testing.T) {
	n := newNeighbourhood(t)
	n.signIn(n.there(), followed, entratest.Alice)
	n.keyring.SetAbsent(true)
	cfg := n.config()
	cfg.Order = []string{"keyring", "plaintext"}
	_, err := tokenkeep.Open(ctx, cfg)
	var none *fallback.NoneError
	require.ErrorAs(t, err, &none)
	require.Empty(t, n.files())

	n.keyring.SetAbsent(false)
	cfg.AllowPlaintext = true
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	choice, _ := tokenkeep.ChoiceOf(c)
	require.Equal(t, tokenkeep.ByOrder, choice.By)
	require.True(t, choice.InUse.Encrypted)

	// In memory it works too, and leaves nothing.
	cfg = n.config()
	cfg.Store, cfg.Dir = "memory", filepath.Join(n.dir, "none")
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.NotEmpty(t, n.token(n.client(c, followed), "Mail.Read"))
	require.NoDirExists(t, cfg.Dir)
}

// What can be followed is Microsoft Entra ID's. Open says so where there is nothing
// else; of several sign-ins the others are left out.
func TestFollowRefusesStrangers(t *testing.T) {
	n := newNeighbourhood(t)
	entry := func(env string) string {
		return `"u.t-` + env + `-refreshtoken-` + followed + `--":{"home_account_id":"u.t","environment":"` + env + `","client_id":"` + followed + `","credential_type":"RefreshToken","secret":"` + planted + `"}`
	}
	write := func(entries ...string) {
		require.NoError(t, os.WriteFile(n.path, []byte(`{"RefreshToken":{`+strings.Join(entries, ",")+`}}`), 0o600))
	}
	write(entry("login.contoso.example"))
	_, err := tokenkeep.Open(ctx, n.config())
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "login.contoso.example")
	require.ErrorContains(t, err, n.path)
	require.NotEmpty(t, persistence.Remedy(err))
	require.Empty(t, n.files())

	write(entry("login.contoso.example"), entry("login.microsoftonline.us"))
	var log strings.Builder
	cfg := n.config()
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Contains(t, load(t, c), "login.microsoftonline.us")
	require.NotContains(t, load(t, c), "login.contoso.example")
	require.Equal(t, 1, strings.Count(log.String(), "login.contoso.example"), log.String())

	for _, bad := range []persistence.Neighbour{nil, (*interop.Store)(nil)} {
		cfg.Follow = []persistence.Neighbour{bad}
		_, err := tokenkeep.Open(ctx, cfg)
		require.ErrorContains(t, err, "Config.Follow")
	}
	_, err = persistence.NewPartitioned(func(context.Context, string) (persistence.Persistence, error) { return persistence.NewMemory(), nil },
		persistence.WithFollow(persistence.NewMemory()))
	require.Error(t, err)
}

// broken is a neighbour that cannot be read while err is set.
type broken struct {
	persistence.Neighbour
	err error
}

func (b *broken) Revision(ctx context.Context) (string, error) {
	if b.err != nil {
		return "", b.err
	}
	return b.Neighbour.Revision(ctx)
}

func (b *broken) LoadRevision(ctx context.Context) ([]byte, string, error) {
	if b.err != nil {
		return nil, "", b.err
	}
	return b.Neighbour.LoadRevision(ctx)
}

// A neighbour that cannot be read counts as empty, is logged once, and costs nothing
// that was kept of it.
func TestFollowUnreadable(t *testing.T) {
	n := newNeighbourhood(t)
	n.signIn(n.there(), followed, entratest.Alice)
	cfg := n.config()
	var log strings.Builder
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	theirs := &broken{Neighbour: cfg.Follow[0]}
	cfg.Follow[0] = theirs
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	client := n.client(c, followed)
	kept := n.token(client, "Mail.Read")

	theirs.err = errors.New("out of order")
	require.Empty(t, n.accounts(client))
	n.signIn(c, ours, entratest.Bob) // which stores
	require.Len(t, n.accounts(client), 1)
	require.Equal(t, 1, strings.Count(log.String(), "out of order"), log.String())
	_, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err, "it is no reason to fail")

	theirs.err = nil
	all := n.accounts(client)
	require.Len(t, all, 2)
	requests := n.s.Requests(entratest.GrantRefreshToken)
	for _, a := range all {
		if a.PreferredUsername == entratest.Alice.Username {
			r, err := client.AcquireTokenSilent(ctx, []string{"Mail.Read"}, public.WithSilentAccount(a))
			require.NoError(t, err)
			require.Equal(t, kept, r.AccessToken)
		}
	}
	require.Equal(t, requests, n.s.Requests(entratest.GrantRefreshToken))
	ended, end := context.WithCancel(ctx)
	end()
	_, err = tokenkeep.Open(ended, cfg)
	require.ErrorIs(t, err, context.Canceled)
}

// A sign-out, on either side, is not undone by a refresh that was under way here.
func TestFollowSignOutDuringRefresh(t *testing.T) {
	for name, signOut := range map[string]func(n *neighbourhood){
		"here": func(n *neighbourhood) {
			client := n.client(n.start(), followed)
			require.NoError(n.t, client.RemoveAccount(ctx, n.accounts(client)[0]))
		},
		"over there": func(n *neighbourhood) { require.NoError(n.t, n.there().Delete(ctx)) },
	} {
		for _, kept := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				n := newNeighbourhood(t)
				n.signIn(n.there(), followed, entratest.Alice)
				c := n.start()
				client := n.client(c, followed)
				if kept {
					n.token(client, "Files.Read")
				}
				account := n.accounts(client)[0]
				hold := n.s.Hold(entratest.GrantRefreshToken)
				done := make(chan error)
				go func() {
					_, err := client.AcquireTokenSilent(ctx, []string{"Mail.Read"}, public.WithSilentAccount(account))
					done <- err
				}()
				<-hold.Arrived()
				signOut(n)
				hold.Release()
				require.NoError(t, <-done)
				require.Empty(t, n.accounts(n.client(n.start(), followed)))
				require.Empty(t, n.accounts(client))
				require.NotContains(t, n.kept(c), `"secret"`)
			})
		}
	}
}
