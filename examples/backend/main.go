// Backend is a program that stores its tokens in a backend of its own: a vault that
// its organization runs, reached over HTTP (vault.go). Locking, merging and the rest
// come from persistence.New; main_test.go runs the conformance suite.
//
//	go run ./examples/backend
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	authority, err := demo.Start("backend")
	if err != nil {
		return err
	}
	defer authority.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	go http.Serve(listener, new(service))
	vault := Vault{URL: "http://" + listener.Addr().String() + "/tokens/alice", Client: http.DefaultClient}

	// Two machines of one user.
	for _, machine := range []string{"laptop", "desktop"} {
		tokens, err := persistence.New(vault)
		if err != nil {
			return err
		}
		client, err := public.New(demo.ClientID, public.WithAuthority(authority.URL), public.WithHTTPClient(authority.Client), public.WithCache(tokens))
		if err != nil {
			return err
		}
		accounts, err := client.Accounts(ctx)
		if err != nil {
			return err
		}
		if len(accounts) > 0 {
			fmt.Printf("%s: %s is signed in already\n", machine, accounts[0].PreferredUsername)
			continue
		}
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
		fmt.Printf("%s: %s has signed in\n", machine, result.Account.PreferredUsername)
	}
	return nil
}
