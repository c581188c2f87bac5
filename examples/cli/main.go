// Cli is a command line program with login, logout and whoami.
//
//	go run ./examples/cli login
//	go run ./examples/cli whoami
//	go run ./examples/cli logout
//
// The tokens are stored in the safest way that works here. With CONTOSO_STORE the
// user chooses: keyring, passphrase, plaintext or memory.
//
// It needs no account: package demo starts a test authority. Your own program needs
// neither that nor WithHTTPClient, and has its own client ID.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var scopes = []string{"User.Read"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	authority, err := demo.Start("cli")
	if err != nil {
		return err
	}
	defer authority.Close()

	tokens, err := tokenkeep.Open(ctx, tokenkeep.Config{
		Name:           "contoso-example-cli",
		Store:          os.Getenv("CONTOSO_STORE"),
		AllowPlaintext: os.Getenv("CONTOSO_STORE") == "plaintext", // only if the user says so
	})
	if err != nil {
		return err // it says what does not work here, and what would help
	}
	client, err := public.New(demo.ClientID, public.WithAuthority(authority.URL), public.WithHTTPClient(authority.Client), public.WithCache(tokens))
	if err != nil {
		return err
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	command := "whoami"
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "login":
		code, err := client.AcquireTokenByDeviceCode(ctx, scopes)
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
		fmt.Println("Signed in as " + result.Account.PreferredUsername + ".")
	case "logout":
		for _, account := range accounts {
			if err := client.RemoveAccount(ctx, account); err != nil {
				return err
			}
			fmt.Println("Signed out " + account.PreferredUsername + ".")
		}
	case "whoami":
		if len(accounts) == 0 {
			return errors.New("nobody is signed in; run login")
		}
		result, err := silently(ctx, client, tokens, accounts[0])
		if err != nil {
			return err
		}
		fmt.Printf("%s, with a token for %v.\n", result.Account.PreferredUsername, result.GrantedScopes)
	default:
		return fmt.Errorf("unknown command %q: use login, logout or whoami", command)
	}
	return nil
}

// silently returns a token without asking the user: from the cache or, if that
// one has expired, with the refresh token. Exclusive prevents two runs at
// the same time from spending one refresh token twice.
func silently(ctx context.Context, client public.Client, tokens *persistence.Cache, account public.Account) (result public.AuthResult, err error) {
	err = tokens.Exclusive(ctx, account.HomeAccountID, func(ctx context.Context) error {
		result, err = client.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(account))
		return err
	})
	return result, err
}
