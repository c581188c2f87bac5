// Package demo lets the examples run with no account and no network: it gives
// them a test authority on loopback instead of Microsoft Entra ID.
package demo

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/entratest"
)

// What an app's registration in Entra ID says. A real program has its own.
const (
	ClientID     = "11111111-2222-4333-8444-555555555555"
	ServerID     = "22222222-3333-4444-8555-666666666666"
	ServerSecret = "a pretend secret"
	Tenant       = entratest.Contoso
	User         = "alice@contoso.example"
)

// endpointVariable tells a process that an example starts where the authority is.
const endpointVariable = "TOKENKEEP_DEMO_AUTHORITY"

// Authority is the test authority. Its tokens are worth nothing.
type Authority struct {
	URL    string // for public.WithAuthority and confidential.New
	Client *http.Client
	*entratest.Server
}

// Start starts an authority or, in a process that Command started, finds the one
// of its parent. Users stay signed in between runs: the hashes of its refresh
// tokens are in the user's cache folder.
func Start(example string) (*Authority, error) {
	a := &Authority{URL: entratest.Authority(Tenant)}
	var err error
	if endpoint := os.Getenv(endpointVariable); endpoint != "" {
		a.Client, err = entratest.NewClient(endpoint)
		return a, err
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	a.Server, err = entratest.Start(entratest.Options{StateFile: filepath.Join(dir, "tokenkeep-examples", example+".json"), Secrets: map[string]string{ServerID: ServerSecret}})
	if err != nil {
		return nil, err
	}
	a.Client = a.Server.Client()
	return a, nil
}

// Env is the variable by which a program finds the authority.
func (a *Authority) Env() string { return endpointVariable + "=" + a.Endpoint() }

// HTTPClient returns the client of the authority that the environment names, and
// else one that reaches the real one.
func HTTPClient() (*http.Client, error) {
	if endpoint := os.Getenv(endpointVariable); endpoint != "" {
		return entratest.NewClient(endpoint)
	}
	return http.DefaultClient, nil
}

// Show is what a program does with a device code: it shows it to the user. Here
// it also does what the user would do then.
func (a *Authority) Show(ctx context.Context, code public.DeviceCode) error {
	fmt.Println(code.Result.Message)
	fmt.Printf("(The demo does that for you, as %s.)\n", User)
	return entratest.Approve(ctx, a.Client, code.Result.VerificationURL, code.Result.UserCode, User)
}

// Command is this very program again, as a further process with the same
// authority.
func (a *Authority) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), a.Env())
	cmd.Stderr = os.Stderr
	return cmd, nil
}
