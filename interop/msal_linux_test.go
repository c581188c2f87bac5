package interop

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	msalcache "github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/proxy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const scope = "https://graph.microsoft.com/User.Read"

// startProxy returns what the environment of a program in another language needs to
// use the test authority.
func startProxy(t testing.TB, s *entratest.Server) []string {
	t.Helper()
	p, err := proxy.Start(s.Client(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p.Env
}

// msalPython is MSAL Python on a shared cache.
type msalPython struct {
	t      testing.TB
	s      *entratest.Server
	env    []string
	path   string
	client string
}

// do runs one call and returns what it says, line by line.
func (p msalPython) do(what string) (said []string) {
	p.t.Helper()
	cmd := pythonCommand("msal", p.path, p.client, what, scope)
	cmd.Env = append(os.Environ(), p.env...)
	run := startPeer(p.t, cmd)
	for line := range run.lines {
		if words := strings.Fields(line); words[0] == "code" {
			require.NoError(p.t, entratest.Approve(p.t.Context(), p.s.Client(), words[2], words[1], entratest.Alice.Username))
			continue
		}
		said = append(said, line)
	}
	require.NotEmpty(p.t, said, "%s: %s", what, run.err.String())
	require.Equal(p.t, "end", said[len(said)-1], "%s: %s", what, run.err.String())
	return said[:len(said)-1]
}

func (p msalPython) token(what string) string {
	p.t.Helper()
	said := p.do(what)
	require.Len(p.t, said, 1)
	return strings.TrimPrefix(said[0], "token ")
}

// msalGo is a new process' MSAL Go on a cache.
func msalGo(t testing.TB, s *entratest.Server, path, client string, write bool) (public.Client, *Store) {
	t.Helper()
	store, err := File(path, Options{Clients: []string{client}, Write: write})
	require.NoError(t, err)
	return clientOn(t, s, store, client), store
}

func clientOn(t testing.TB, s *entratest.Server, store *Store, client string) public.Client {
	t.Helper()
	c, err := persistence.New(store, persistence.WithStrict())
	require.NoError(t, err)
	app, err := public.New(client, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client()), public.WithCache(c))
	require.NoError(t, err)
	return app
}

func accountsOf(t testing.TB, app public.Client) []public.Account {
	t.Helper()
	all, err := app.Accounts(context.Background())
	require.NoError(t, err)
	return all
}

func silent(t testing.TB, app public.Client) public.AuthResult {
	t.Helper()
	all := accountsOf(t, app)
	require.Len(t, all, 1)
	r, err := app.AcquireTokenSilent(context.Background(), []string{scope}, public.WithSilentAccount(all[0]))
	require.NoError(t, err)
	return r
}

// One client id, MSAL Go and MSAL Python: what either does, the other sees, and a
// sign-out of one client leaves the other client signed in.
func TestOneSignInForGoAndPython(t *testing.T) {
	needPython(t)
	s, err := entratest.Start(entratest.Options{Interval: -1}) // refresh tokens rotate: to use a spent one would sign the user out
	require.NoError(t, err)
	defer s.Close()
	path, ctx := folder(t), t.Context()
	proxied := startProxy(t, s)
	python := msalPython{t, s, proxied, path, "client-c"}
	another := msalPython{t, s, proxied, path, "client-d"}

	// MSAL Go signs in; MSAL Python uses it.
	app, _ := msalGo(t, s, path, "client-c", true)
	code, err := app.AcquireTokenByDeviceCode(ctx, []string{scope})
	require.NoError(t, err)
	require.NoError(t, entratest.Approve(ctx, s.Client(), code.Result.VerificationURL, code.Result.UserCode, entratest.Alice.Username))
	signedIn, err := code.AuthenticationResult(ctx)
	require.NoError(t, err)
	require.Equal(t, signedIn.AccessToken, python.token("silent"))

	expire := func() {
		t.Helper()
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		raw, err = entratest.Expire(raw)
		require.NoError(t, err)
		writeFile(t, path, string(raw))
	}
	// MSAL Python refreshes; MSAL Go uses that, then refreshes with the new refresh
	// token; MSAL Python uses that.
	expire()
	refreshed := python.token("silent")
	require.NotEqual(t, signedIn.AccessToken, refreshed)
	app, _ = msalGo(t, s, path, "client-c", true)
	require.Equal(t, refreshed, silent(t, app).AccessToken)
	expire()
	again := silent(t, app).AccessToken
	require.NotEqual(t, refreshed, again)
	require.Equal(t, again, python.token("silent"))
	require.Zero(t, s.Reuses(), "a spent refresh token was used")

	// Another client signs in by MSAL Python; MSAL Go signs the first one out.
	require.NotEmpty(t, another.token("login"))
	app, store := msalGo(t, s, path, "client-c", true)
	require.NoError(t, app.RemoveAccount(ctx, accountsOf(t, app)[0]))
	require.Empty(t, accountsOf(t, app))
	app, _ = msalGo(t, s, path, "client-c", true)
	require.Empty(t, accountsOf(t, app))
	if view, err := store.Load(ctx); err == nil { // AppMetadata may be left
		require.NotContains(t, string(view), `"secret"`)
	} else {
		require.ErrorIs(t, err, persistence.ErrNotFound)
	}
	require.Contains(t, another.do("accounts")[0], entratest.Alice.HomeAccountID())
	require.NotEqual(t, "none", another.token("silent"))
	expire()
	require.NotEqual(t, "none", another.token("silent"), "the other client refreshes")

	// MSAL Python signs it out: nothing of it is seen here.
	app, _ = msalGo(t, s, path, "client-d", true)
	require.Len(t, accountsOf(t, app), 1)
	another.do("remove")
	require.Empty(t, accountsOf(t, app))
	require.Equal(t, []string{"cache.json"}, names(t, filepath.Dir(path)))
	require.Zero(t, s.Reuses())
}

// azure runs Azure CLI in its own home.
type azure struct {
	t    testing.TB
	s    *entratest.Server
	env  []string
	home string
}

func (a azure) run(args ...string) string {
	a.t.Helper()
	out, messages, err := a.try(args...)
	require.NoError(a.t, err, "az %v: %s", args, messages)
	return out
}

// try returns what az says on standard output and on standard error.
func (a azure) try(args ...string) (text, log string, err error) {
	a.t.Helper()
	cmd := exec.Command("az", args...)
	cmd.Env = append(os.Environ(), append(a.env, "HOME="+a.home, "AZURE_CONFIG_DIR="+filepath.Join(a.home, ".azure"))...)
	out, err := cmd.StdoutPipe()
	require.NoError(a.t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(a.t, err)
	require.NoError(a.t, cmd.Start())
	said := make(chan string)
	go func() {
		var all bytes.Buffer
		_, _ = all.ReadFrom(out)
		said <- all.String()
	}()
	// The user code comes on standard error.
	prompt := regexp.MustCompile(`open the page (\S+) and enter the code (\S+) to`)
	var messages bytes.Buffer
	b := make([]byte, 4096)
	approved := false
	for {
		n, readErr := stderr.Read(b)
		messages.Write(b[:n])
		if m := prompt.FindStringSubmatch(messages.String()); m != nil && !approved {
			approved = true
			require.NoError(a.t, entratest.Approve(a.t.Context(), a.s.Client(), m[1], m[2], entratest.Alice.Username))
		}
		if readErr != nil {
			break
		}
	}
	text = <-said
	return text, messages.String(), cmd.Wait()
}

// Azure CLI signs in; a Go program gets a token of that sign-in in its own process.
// Nothing in Azure CLI's folder changes. After az logout nothing is seen.
func TestAzureCLIsSignIn(t *testing.T) {
	env.Require(t, exec.Command("az", "--version").Run() == nil, "Azure CLI is not installed: apt-get install azure-cli")
	folder(t)
	s, err := entratest.Start(entratest.Options{Interval: -1, AllowReuse: true})
	require.NoError(t, err)
	defer s.Close()
	a := azure{t, s, startProxy(t, s), t.TempDir()}
	a.run("login", "--use-device-code", "--tenant", entratest.Contoso)
	dir := filepath.Join(a.home, ".azure")
	t.Setenv("AZURE_CONFIG_DIR", dir)
	before := stateOf(t, dir)
	az, err := AzureCLI(Options{})
	require.NoError(t, err)
	cache, err := persistence.New(az)
	require.NoError(t, err)
	app, err := public.New(AzureCLIClientID, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client()),
		public.WithCache(cache), public.WithClientCapabilities([]string{"CP1"}))
	require.NoError(t, err)
	all := accountsOf(t, app)
	require.Len(t, all, 1)
	require.Equal(t, entratest.Alice.Username, all[0].PreferredUsername)
	start := time.Now()
	r, err := app.AcquireTokenSilent(t.Context(), []string{"https://management.core.windows.net//.default"}, public.WithSilentAccount(all[0]))
	require.NoError(t, err)
	mine := time.Since(start)
	require.NotEmpty(t, r.AccessToken)
	// A scope that Azure CLI has not asked for: its refresh token is used, and what
	// comes of it stays in this program's memory.
	_, err = app.AcquireTokenSilent(t.Context(), []string{"https://vault.azure.net/.default"}, public.WithSilentAccount(all[0]))
	require.NoError(t, err)
	require.Equal(t, before, stateOf(t, dir))

	start = time.Now()
	token := a.run("account", "get-access-token", "--output", "tsv", "--query", "accessToken")
	t.Logf("a token: %v in process, %v from az", mine, time.Since(start))
	require.Equal(t, r.AccessToken, strings.TrimSpace(token), "it is the token that Azure CLI has")
	require.NotEqual(t, before, stateOf(t, dir), "control: Azure CLI's own calls do change its folder")

	a.run("logout")
	require.Empty(t, accountsOf(t, app))
	if view, err := az.Load(t.Context()); err == nil {
		require.NotContains(t, string(view), `"secret"`)
	} else {
		require.ErrorIs(t, err, persistence.ErrNotFound)
	}
}

// gosOwn keeps a cache as MSAL Go writes it, under MSAL Go's own keys.
type gosOwn struct{ path string }

func (g gosOwn) Replace(_ context.Context, into msalcache.Unmarshaler, _ msalcache.ReplaceHints) error {
	raw, err := os.ReadFile(g.path)
	if err != nil {
		return err
	}
	return into.Unmarshal(raw)
}

func (g gosOwn) Export(_ context.Context, from msalcache.Marshaler, _ msalcache.ExportHints) error {
	raw, err := from.Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(g.path, raw, 0o600)
}

// With MSAL Go's own keys the file has a token twice after a refresh by Go, and MSAL
// Python goes on with the one that is spent. Through a Store there is one.
func TestGosOwnKeysAreCaught(t *testing.T) {
	needPython(t)
	for name, store := range map[string]func(path string) msalcache.ExportReplace{
		"a Store": func(path string) msalcache.ExportReplace {
			c, err := persistence.New(writable(t, path, "client-c"), persistence.WithStrict())
			require.NoError(t, err)
			return c
		},
		"control: MSAL Go's own keys": func(path string) msalcache.ExportReplace { return gosOwn{path} },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := entratest.Start(entratest.Options{Interval: -1})
			require.NoError(t, err)
			defer s.Close()
			path := folder(t)
			python := msalPython{t, s, startProxy(t, s), path, "client-c"}
			expire := func() {
				raw, err := os.ReadFile(path)
				require.NoError(t, err)
				raw, err = entratest.Expire(raw)
				require.NoError(t, err)
				writeFile(t, path, string(raw))
			}
			require.NotEmpty(t, python.token("login"))
			expire()
			app, err := public.New("client-c", public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client()), public.WithCache(store(path)))
			require.NoError(t, err)
			silent(t, app)
			expire()
			said := python.do("silent")
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			h, err := lens.Examine(raw)
			require.NoError(t, err)
			if name == "a Store" {
				require.NotEqual(t, []string{"token none"}, said)
				require.Zero(t, s.Reuses())
				require.Zero(t, h.Twice)
				return
			}
			require.NotZero(t, s.Reuses(), "%s", said)
			require.NotZero(t, h.Twice)
		})
	}
}
