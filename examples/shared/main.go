// Shared is two programs that share one sign-in: the user signs in once, in one of
// them, and the other finds the tokens. Both use the same Name.
//
//	go run ./examples/shared
//
// It starts itself again as the second program. Real ones can be of different
// vendors, if they agree on the Name; each then has its own client ID, and MSAL
// keeps their tokens apart.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
)

func main() {
	run := first
	if len(os.Args) > 1 && os.Args[1] == "second" {
		run = second
	}
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// open is the same in both programs.
func open(ctx context.Context, authority *demo.Authority) (public.Client, error) {
	tokens, err := tokenkeep.Open(ctx, tokenkeep.Config{
		Name:           "contoso-example-shared",
		Store:          os.Getenv("CONTOSO_STORE"),
		AllowPlaintext: os.Getenv("CONTOSO_STORE") == "plaintext",
	})
	if err != nil {
		return public.Client{}, err
	}
	return public.New(demo.ClientID, public.WithAuthority(authority.URL), public.WithHTTPClient(authority.Client), public.WithCache(tokens))
}

func first(ctx context.Context) error {
	authority, err := demo.Start("shared")
	if err != nil {
		return err
	}
	defer authority.Close()
	client, err := open(ctx, authority)
	if err != nil {
		return err
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
	fmt.Printf("first program:  %s has signed in\n", result.Account.PreferredUsername)

	cmd, err := authority.Command(ctx, "second")
	if err != nil {
		return err
	}
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		return err
	}

	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("first program:  %d accounts are left\n", len(accounts))
	return nil
}

func second(ctx context.Context) error {
	authority, err := demo.Start("shared")
	if err != nil {
		return err
	}
	client, err := open(ctx, authority)
	if err != nil {
		return err
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	if len(accounts) == 0 {
		return errors.New("second program: nobody is signed in")
	}
	result, err := client.AcquireTokenSilent(ctx, []string{"User.Read"}, public.WithSilentAccount(accounts[0]))
	if err != nil {
		return err
	}
	fmt.Printf("second program: it is %s; nobody was asked\n", result.Account.PreferredUsername)
	if err := client.RemoveAccount(ctx, accounts[0]); err != nil {
		return err
	}
	fmt.Println("second program: signed out")
	return nil
}
