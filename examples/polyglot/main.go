// Polyglot is a Go program and a Python program with one client ID, which share one
// sign-in: the user signs in once, in one of them, and the other finds the tokens.
//
//	go run ./examples/polyglot
//
// The Python program is contoso.py. It knows nothing of tokenkeep: it keeps its
// tokens in a plain file, as Microsoft's msal-extensions for Python do. It needs
// these: apt-get install python3-msal-extensions, or pip install msal-extensions
// with portalocker. The Go program uses the same file, with the lock that the other
// knows. The file is not encrypted.
package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/internal/test/proxy"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var python = flag.String("python", "python3", "the Python that has msal-extensions")

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// open is all that the Go program has to do with tokenkeep: the file that the other
// program uses, and whose entries in it this one may see and change.
func open(path string, authority *demo.Authority) (public.Client, error) {
	shared, err := interop.File(path, interop.Options{Clients: []string{demo.ClientID}, Write: true})
	if err != nil {
		return public.Client{}, err
	}
	tokens, err := persistence.New(shared)
	if err != nil {
		return public.Client{}, err
	}
	return public.New(demo.ClientID, public.WithAuthority(authority.URL), public.WithHTTPClient(authority.Client), public.WithCache(tokens))
}

func run(ctx context.Context) error {
	authority, err := demo.Start("polyglot")
	if err != nil {
		return err
	}
	defer authority.Close()
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(home, ".contoso-example-polyglot")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, "msal_cache.json")
	client, err := open(path, authority)
	if err != nil {
		return err
	}
	other, err := newPython(path, authority)
	if err != nil {
		return err
	}
	defer other.Close()

	// The user signs in with the Go program.
	code, err := client.AcquireTokenByDeviceCode(ctx, []string{"User.Read"})
	if err != nil {
		return err
	}
	if err := authority.Show(ctx, code); err != nil {
		return err
	}
	result, err := code.AuthenticationResult(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("Go: %s has signed in\n", result.Account.PreferredUsername)
	if err := other.run(ctx, "whoami"); err != nil {
		return err
	}

	// The user signs out with the Python program, and in again.
	if err := other.run(ctx, "sign-out"); err != nil {
		return err
	}
	if err := whoAmI(ctx, client); err != nil {
		return err
	}
	if err := other.run(ctx, "sign-in"); err != nil {
		return err
	}
	if err := whoAmI(ctx, client); err != nil {
		return err
	}

	// And out with the Go program.
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		if err := client.RemoveAccount(ctx, account); err != nil {
			return err
		}
		fmt.Println("Go: signed out")
	}
	return other.run(ctx, "whoami")
}

func whoAmI(ctx context.Context, client public.Client) error {
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	if len(accounts) == 0 {
		fmt.Println("Go: nobody is signed in")
	}
	for _, account := range accounts {
		if _, err := client.AcquireTokenSilent(ctx, []string{"User.Read"}, public.WithSilentAccount(account)); err != nil {
			return err
		}
		fmt.Printf("Go: it is %s; here is a token\n", account.PreferredUsername)
	}
	return nil
}

// pythonProgram is contoso.py. What else is here is for the demo: the proxy by which
// it reaches the pretend authority, and what its user does.
type pythonProgram struct {
	path      string
	authority *demo.Authority
	dir       string // of the proxy
	*proxy.Proxy
}

//go:embed contoso.py
var program string

func newPython(path string, authority *demo.Authority) (*pythonProgram, error) {
	dir, err := os.MkdirTemp("", "polyglot")
	if err != nil {
		return nil, err
	}
	p, err := proxy.Start(authority.Client, dir)
	return &pythonProgram{path, authority, dir, p}, err
}

func (p *pythonProgram) Close() {
	p.Proxy.Close()
	os.RemoveAll(p.dir)
}

var message = regexp.MustCompile(`open the page (\S+) and enter the code (\S+) to`)

func (p *pythonProgram) run(ctx context.Context, what string) error {
	cmd := exec.CommandContext(ctx, *python, "-", p.path, demo.ClientID, p.authority.URL, what)
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(program), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var failed error
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Println(lines.Text())
		if m := message.FindStringSubmatch(lines.Text()); m != nil {
			fmt.Printf("(The demo does that for you, as %s.)\n", demo.User)
			failed = entratest.Approve(ctx, p.authority.Client, m[1], m[2], demo.User)
		}
	}
	if err := cmd.Wait(); err != nil {
		return errors.Join(failed, fmt.Errorf("%s did not run contoso.py, which needs msal-extensions with portalocker: %w", *python, err))
	}
	return failed
}
