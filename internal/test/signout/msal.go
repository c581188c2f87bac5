package signout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A Program says how a program uses the real MSAL client.
type Program struct {
	Name         string
	Confidential bool
	Partitioned  bool
	Lists        bool // lists the accounts before it refreshes; else it has kept the account's record
	PerRequest   bool // a client for each request; the refreshes are of one request
	OneContext   bool // for all calls
}

// Programs are those that a test runs with.
var Programs = []Program{
	{Name: "public, lists", Lists: true},
	{Name: "public"},
	{Name: "public, one context", OneContext: true},
	{Name: "confidential", Confidential: true},
	{Name: "confidential, one context", Confidential: true, OneContext: true},
	{Name: "confidential, client per request", Confidential: true, PerRequest: true},
	{Name: "partitioned", Confidential: true, Partitioned: true},
	{Name: "partitioned, one context", Confidential: true, Partitioned: true, OneContext: true},
	{Name: "partitioned, client per request", Confidential: true, Partitioned: true, PerRequest: true},
}

// maxHeld is how many answers the authority holds back at once.
const maxHeld = 4

const (
	realClient = "11111111-0000-4000-8000-000000000001"
	realSecret = "a secret"
	redirect   = "http://localhost:1/signed-in"
)

// Held signs a user out while the authority holds answers to refreshes back, and
// returns what is wrong with what is stored afterwards. open opens the store of an
// account, or with "" that of all, as each process does anew. glue makes what MSAL
// gets; nil stands for a Cache or a Partitioned.
func Held(t *testing.T, p Program, rnd *rand.Rand, open func(partition string) (persistence.Persistence, error), glue func() cache.ExportReplace) error {
	t.Helper()
	o := entratest.Options{AllowReuse: true}
	if p.Confidential {
		o.Secrets = map[string]string{realClient: realSecret}
	}
	s, err := entratest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test has what it wants
	h := &held{t: t, p: p, s: s, http: s.Client(), open: open, glue: glue}
	return h.run(rnd)
}

type held struct {
	t    *testing.T
	p    Program
	s    *entratest.Server
	http *http.Client
	open func(string) (persistence.Persistence, error)
	glue func() cache.ExportReplace
}

func (h *held) run(rnd *rand.Rand) error {
	here, elsewhere := h.process(), h.process()
	alice, bob := entratest.Alice, entratest.Bob
	first := here.client()
	for _, u := range []entratest.User{bob, alice} {
		h.must(first.signIn(here.context(), u))
	}
	if !h.holds(alice) || !h.holds(bob) {
		h.t.Fatal("what was signed in is not stored")
	}

	// Refreshes begin. If each request has a client, they are of one request.
	request, ctx := here.client(), here.context()
	if h.p.Lists {
		_, err := request.list(ctx)
		h.must(err)
		h.must(request.silent(ctx, bob, "User.Read"))
	}
	type refresh struct {
		hold *entratest.Hold
		done chan error
	}
	var refreshes []refresh
	for i := range 1 + rnd.IntN(maxHeld) {
		r := refresh{h.s.Hold(entratest.GrantRefreshToken), make(chan error, 1)}
		its := ctx
		if !h.p.PerRequest {
			its = here.context()
		}
		go func() { r.done <- request.silent(its, alice, fmt.Sprintf("Scope.%d", i)) }()
		select {
		case <-r.hold.Arrived():
		case err := <-r.done:
			h.t.Fatalf("a refresh did not reach the authority: %v", err)
		}
		refreshes = append(refreshes, r)
	}
	h.must(elsewhere.signOut(alice))
	if h.holds(alice) {
		return errors.New("P1: a sign-out leaves the account")
	}

	// Some answers come before the user signs in again, some after it.
	rnd.Shuffle(len(refreshes), func(i, j int) { refreshes[i], refreshes[j] = refreshes[j], refreshes[i] })
	late := rnd.IntN(len(refreshes))
	answer := func(r refresh) {
		r.hold.Release()
		h.must(<-r.done)
	}
	for _, r := range refreshes[late:] {
		if rnd.IntN(3) == 0 { // a look in between
			request.silent(here.context(), alice, "User.Read") //nolint:errcheck // nobody is signed in
		}
		answer(r)
		if h.holds(alice) {
			return errors.New("P1: a refresh that was under way has brought the account back")
		}
		if !h.holds(bob) {
			return errors.New("P3: another account is gone")
		}
	}
	again := request
	if h.p.PerRequest {
		again = here.client()
	}
	h.must(again.signIn(here.context(), alice))
	if h.p.Confidential && h.p.OneContext {
		for _, r := range refreshes[:late] { // nothing tells the two apart
			answer(r)
		}
		return nil
	}
	if !h.holds(alice) {
		return errors.New("P2: a new sign-in is not stored")
	}
	before := h.stored()
	for _, r := range refreshes[:late] {
		answer(r)
		if !h.p.OneContext && h.stored() != before {
			return errors.New("P1: a refresh that was under way has changed what a new sign-in stored")
		}
	}
	if !h.holds(alice) || !h.holds(bob) {
		return errors.New("P3: an account is gone")
	}
	return nil
}

func (h *held) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// stored returns all that is stored.
func (h *held) stored() string {
	h.t.Helper()
	var all strings.Builder
	for _, partition := range h.partitions() {
		s, err := h.open(partition)
		h.must(err)
		data, err := s.Load(h.t.Context())
		if err != nil && !errors.Is(err, persistence.ErrNotFound) {
			h.t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

func (h *held) partitions() []string {
	if h.p.Partitioned {
		return []string{entratest.Alice.HomeAccountID(), entratest.Bob.HomeAccountID()}
	}
	return []string{""}
}

func (h *held) holds(u entratest.User) bool { return strings.Contains(h.stored(), u.HomeAccountID()) }

// A realProcess is a process with MSAL clients.
type realProcess struct {
	*held
	hooks cache.ExportReplace
	parts *persistence.Partitioned
	one   context.Context
	n     int
}

func (h *held) process() *realProcess {
	h.t.Helper()
	p := &realProcess{held: h, one: h.t.Context()}
	quiet := persistence.WithLogger(slog.New(slog.DiscardHandler))
	switch {
	case h.glue != nil:
		p.hooks = h.glue()
	case h.p.Partitioned:
		parts, err := persistence.NewPartitioned(func(_ context.Context, partition string) (persistence.Persistence, error) {
			return h.open(partition)
		}, quiet)
		h.must(err)
		p.hooks, p.parts = parts, parts
	default:
		s, err := h.open("")
		h.must(err)
		c, err := persistence.New(s, quiet)
		h.must(err)
		p.hooks = c
	}
	return p
}

// context returns that of a call.
func (p *realProcess) context() context.Context {
	if p.p.OneContext {
		return p.one
	}
	p.n++
	type key struct{}
	return context.WithValue(p.one, key{}, p.n)
}

func (p *realProcess) signOut(u entratest.User) error {
	if p.parts != nil {
		return p.parts.SignOut(p.context(), u.HomeAccountID())
	}
	return p.client().remove(p.context(), u)
}

// An msalClient is a public or a confidential client.
type msalClient struct {
	signIn func(ctx context.Context, u entratest.User) error
	silent func(ctx context.Context, u entratest.User, scope string) error
	list   func(ctx context.Context) (int, error)
	remove func(ctx context.Context, u entratest.User) error
}

func (p *realProcess) client() *msalClient {
	p.t.Helper()
	if p.p.Confidential {
		return p.confidentialClient()
	}
	return p.publicClient()
}

func scopes(scope string) []string { return []string{scope} }

func account(u entratest.User) public.Account {
	return public.Account{HomeAccountID: u.HomeAccountID(), Environment: "login.microsoftonline.com", Realm: entratest.Contoso,
		LocalAccountID: u.ID, PreferredUsername: u.Username}
}

func (p *realProcess) publicClient() *msalClient {
	c, err := public.New(realClient, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(p.http), public.WithCache(p.hooks))
	p.must(err)
	return &msalClient{
		signIn: func(ctx context.Context, u entratest.User) error {
			code, err := p.authorize(ctx, u, func() (string, error) { return c.AuthCodeURL(ctx, realClient, redirect, scopes("User.Read")) })
			if err == nil {
				_, err = c.AcquireTokenByAuthCode(ctx, code, redirect, scopes("User.Read"))
			}
			return err
		},
		silent: func(ctx context.Context, u entratest.User, scope string) error {
			_, err := c.AcquireTokenSilent(ctx, scopes(scope), public.WithSilentAccount(account(u)))
			return err
		},
		list: func(ctx context.Context) (int, error) {
			all, err := c.Accounts(ctx)
			return len(all), err
		},
		remove: func(ctx context.Context, u entratest.User) error {
			all, err := c.Accounts(ctx)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(all, func(a public.Account) bool { return a.HomeAccountID == u.HomeAccountID() })
			if i < 0 {
				return errors.New("there is nobody to sign out")
			}
			return c.RemoveAccount(ctx, all[i])
		},
	}
}

func (p *realProcess) confidentialClient() *msalClient {
	secret, err := confidential.NewCredFromSecret(realSecret)
	p.must(err)
	c, err := confidential.New(entratest.Authority(entratest.Contoso), realClient, secret,
		confidential.WithHTTPClient(p.http), confidential.WithCache(p.hooks), confidential.WithInstanceDiscovery(false))
	p.must(err)
	return &msalClient{
		signIn: func(ctx context.Context, u entratest.User) error {
			code, err := p.authorize(ctx, u, func() (string, error) { return c.AuthCodeURL(ctx, realClient, redirect, scopes("User.Read")) })
			if err == nil {
				_, err = c.AcquireTokenByAuthCode(ctx, code, redirect, scopes("User.Read"))
			}
			return err
		},
		silent: func(ctx context.Context, u entratest.User, scope string) error {
			_, err := c.AcquireTokenSilent(ctx, scopes(scope), confidential.WithSilentAccount(account(u)))
			return err
		},
		remove: func(ctx context.Context, u entratest.User) error {
			a, err := c.Account(ctx, u.HomeAccountID())
			if err != nil {
				return err
			}
			return c.RemoveAccount(ctx, a)
		},
	}
}

// authorize signs a user in at the page of url.
func (p *realProcess) authorize(ctx context.Context, u entratest.User, url func() (string, error)) (code string, err error) {
	to, err := url()
	if err != nil {
		return "", err
	}
	return entratest.Authorize(ctx, p.http, to, u.Username)
}
