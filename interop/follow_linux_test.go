package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() { programs["follows"] = follows }

// follows is a program that follows the cache at path with an own one in the folder
// name, and stores something of its own.
func follows(path, name string, _ int, _ time.Duration) error {
	theirs, err := File(path, Options{Clients: []string{client}})
	if err != nil {
		return err
	}
	c, err := tokenkeep.Open(context.Background(), tokenkeep.Config{Name: "app", Dir: name, Keyring: keyringtest.New(), Follow: []persistence.Neighbour{theirs}})
	if err != nil {
		return err
	}
	e, err := c.Entries("contoso")
	if err != nil {
		return err
	}
	if err := e.Set(context.Background(), "key", []byte("value")); err != nil {
		return err
	}
	data, err := c.Load(context.Background())
	if err != nil {
		return err
	}
	fmt.Println(strings.Contains(string(data), "of the neighbour"), strings.Contains(string(data), "contoso"))
	return nil
}

// A folder that is mounted read-only can be followed.
func TestFollowReadOnlyMount(t *testing.T) {
	env.Require(t, os.Geteuid() == 0 && exec.Command("unshare", "-m", "true").Run() == nil, "only root can mount: run the tests as root in a container that may")
	path := folder(t)
	writeFile(t, path, rt(client, "of the neighbour"))
	exe, err := os.Executable()
	require.NoError(t, err)
	dir := filepath.Dir(path)
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && ! touch "$1/x" 2>/dev/null && shift && exec "$@"`, "sh", dir, exe, path, t.TempDir(), "1", "0")
	cmd.Env = append(os.Environ(), programVariable+"=follows", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "true true\n", string(out))
	require.Equal(t, []string{"cache.json"}, names(t, dir))
}

// Azure CLI signs in; a Go program follows it, refreshes, and keeps what comes of it
// in a cache of its own. Nothing in Azure CLI's folder changes. A sign-out here is
// none there; after az logout nothing is left here either.
func TestFollowAzureCLI(t *testing.T) {
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

	cfg := tokenkeep.Config{Name: "app", Dir: t.TempDir(), Keyring: keyringtest.New(), Strict: true}
	start := func() (*persistence.Cache, public.Client) {
		az, err := AzureCLI(Options{})
		require.NoError(t, err)
		cfg.Follow = []persistence.Neighbour{az}
		c, err := tokenkeep.Open(t.Context(), cfg)
		require.NoError(t, err)
		app, err := public.New(AzureCLIClientID, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client()),
			public.WithCache(c), public.WithClientCapabilities([]string{"CP1"}))
		require.NoError(t, err)
		return c, app
	}
	kept := func(c *persistence.Cache) string {
		data, err := c.Backend().Load(t.Context())
		if errors.Is(err, persistence.ErrNotFound) {
			return ""
		}
		require.NoError(t, err)
		return string(data)
	}
	get := func(app public.Client, scope string) public.AuthResult {
		t.Helper()
		all := accountsOf(t, app)
		require.Len(t, all, 1)
		r, err := app.AcquireTokenSilent(t.Context(), []string{scope}, public.WithSilentAccount(all[0]))
		require.NoError(t, err)
		return r
	}
	const management, vault = "https://management.core.windows.net//.default", "https://vault.azure.net/.default"
	c, app := start()
	require.Equal(t, entratest.Alice.Username, accountsOf(t, app)[0].PreferredUsername)
	theirs := get(app, management).AccessToken
	require.NotContains(t, kept(c), `"secret"`)
	token := get(app, vault).AccessToken
	require.Contains(t, kept(c), token)
	require.NotContains(t, kept(c), theirs)
	c, app = start()
	r := get(app, vault)
	require.Equal(t, token, r.AccessToken)
	require.Equal(t, public.TokenSourceCache, r.Metadata.TokenSource)
	require.Equal(t, before, stateOf(t, dir))

	// Hidden, while Azure CLI goes on; until a sign-in here.
	require.NoError(t, app.RemoveAccount(t.Context(), accountsOf(t, app)[0]))
	require.Equal(t, before, stateOf(t, dir))
	require.NotContains(t, kept(c), `"secret"`)
	require.NotEmpty(t, a.run("account", "get-access-token", "--scope", "https://storage.azure.com/.default", "--output", "tsv", "--query", "accessToken"))
	require.NotEqual(t, before, stateOf(t, dir), "Azure CLI has refreshed")
	require.Empty(t, accountsOf(t, app))
	_, app = start()
	require.Empty(t, accountsOf(t, app))
	require.NoError(t, tokenkeep.Remove(t.Context(), cfg), "the program forgets everything")

	c, app = start()
	get(app, vault)
	require.Contains(t, kept(c), `"secret"`)
	a.run("logout")
	require.Empty(t, accountsOf(t, app))
	require.NotContains(t, kept(c), `"secret"`)
	data, err := c.Load(t.Context())
	require.NoError(t, err)
	require.NotContains(t, string(data), `"secret"`)
}

// The example, beside the real Azure CLI. As a whole process it takes a small part
// of what az takes; how much is logged, not judged.
func TestExampleAzlogin(t *testing.T) {
	env.Require(t, exec.Command("az", "--version").Run() == nil, "Azure CLI is not installed: apt-get install azure-cli")
	program := filepath.Join(t.TempDir(), "azlogin") // built with the user's home, where Go's cache is
	env.DependsOnSources(t, "../examples/azlogin")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../examples/azlogin").CombinedOutput()
	require.NoError(t, err, "%s", out)
	folder(t)
	s, err := entratest.Start(entratest.Options{Interval: -1, AllowReuse: true})
	require.NoError(t, err)
	defer s.Close()
	a := azure{t, s, startProxy(t, s), t.TempDir()}
	a.run("login", "--use-device-code", "--tenant", entratest.Contoso)
	dir := filepath.Join(a.home, ".azure")
	run := func() string {
		cmd := exec.Command(program)
		cmd.Env = []string{"HOME=" + a.home, "CONTOSO_STORE=plaintext", "TOKENKEEP_DEMO_AUTHORITY=" + s.Endpoint()}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	before := stateOf(t, dir)
	require.Contains(t, run(), "which was there")
	require.Equal(t, before, stateOf(t, dir))
	least := func(f func()) (wall, cpu time.Duration) {
		wall, cpu = time.Hour, time.Hour
		for range 3 {
			start, before := time.Now(), cpuOfChildren(t)
			f()
			wall, cpu = min(wall, time.Since(start)), min(cpu, cpuOfChildren(t)-before)
		}
		return wall, cpu
	}
	azWall, azCPU := least(func() { a.run("account", "get-access-token") })
	wall, cpu := least(func() { run() })
	t.Logf("a token: az %v (CPU %v), the example %v (CPU %v): 1/%.0f (CPU 1/%.0f)", azWall, azCPU, wall, cpu, float64(azWall)/float64(wall), float64(azCPU)/float64(cpu))
}

// cpuOfChildren is what ended processes of this one have used.
func cpuOfChildren(t testing.TB) time.Duration {
	var u unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_CHILDREN, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
