// Exclusive is two processes that need a new access token at the same moment and
// together make one request for it. Without Cache.Exclusive each would spend the same
// refresh token; an authority that rotates refresh tokens takes the second use
// for theft and signs the user out.
//
//	go run ./examples/exclusive
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func main() {
	run := parent
	if len(os.Args) > 1 && os.Args[1] == "child" {
		run = child
	}
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var scopes = []string{"User.Read"}

func open(ctx context.Context, authority *demo.Authority) (*persistence.Cache, public.Client, error) {
	tokens, err := tokenkeep.Open(ctx, tokenkeep.Config{
		Name:           "contoso-example-exclusive",
		Store:          os.Getenv("CONTOSO_STORE"),
		AllowPlaintext: os.Getenv("CONTOSO_STORE") == "plaintext",
	})
	if err != nil {
		return nil, public.Client{}, err
	}
	client, err := public.New(demo.ClientID, public.WithAuthority(authority.URL), public.WithHTTPClient(authority.Client), public.WithCache(tokens))
	return tokens, client, err
}

// child is a program that needs a token.
func child(ctx context.Context) error {
	authority, err := demo.Start("exclusive")
	if err != nil {
		return err
	}
	tokens, client, err := open(ctx, authority)
	if err != nil {
		return err
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil { // both begin at once
		return err
	}
	for _, account := range accounts {
		// The process that comes second finds the new token in the cache.
		err := tokens.Exclusive(ctx, account.HomeAccountID, func(ctx context.Context) error {
			_, err := client.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(account))
			return err
		})
		if err != nil {
			return err
		}
		fmt.Printf("a token for %s\n", account.PreferredUsername)
	}
	return nil
}

// parent signs in, lets the access token expire, and starts two children.
func parent(ctx context.Context) error {
	authority, err := demo.Start("exclusive")
	if err != nil {
		return err
	}
	defer authority.Close()
	_, client, err := open(ctx, authority)
	if err != nil {
		return err
	}
	authority.SetLifetime(time.Minute, 0) // MSAL takes that for expired
	code, err := client.AcquireTokenByDeviceCode(ctx, scopes)
	if err != nil {
		return err
	}
	if err := authority.Show(ctx, code); err != nil {
		return err
	}
	if _, err := code.AuthenticationResult(ctx); err != nil {
		return err
	}
	authority.SetLifetime(time.Hour, 0)
	before := authority.Requests(entratest.GrantRefreshToken)

	var children []*process
	for range 2 {
		p, err := start(ctx, authority)
		if err != nil {
			return err
		}
		children = append(children, p)
	}
	for _, p := range children {
		if _, err := p.out.ReadString('\n'); err != nil { // it is ready
			return err
		}
	}
	for _, p := range children {
		fmt.Fprintln(p.in, "go")
	}
	for n, p := range children {
		line, _ := p.out.ReadString('\n')
		if err := p.cmd.Wait(); err != nil {
			return err
		}
		fmt.Printf("process %d: %s", n+1, line)
	}
	fmt.Printf("token requests: %d\n", authority.Requests(entratest.GrantRefreshToken)-before)
	return nil
}

type process struct {
	cmd *exec.Cmd
	in  *os.File
	out *bufio.Reader
}

func start(ctx context.Context, authority *demo.Authority) (*process, error) {
	cmd, err := authority.Command(ctx, "child")
	if err != nil {
		return nil, err
	}
	in, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	cmd.Stdin = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, write, bufio.NewReader(out)}, cmd.Start()
}
