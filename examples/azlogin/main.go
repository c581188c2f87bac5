// Azlogin gets an Azure token from Azure CLI's sign-in, in its own process: no az is
// run, and nothing in Azure CLI's folder changes. What a refresh brings is kept in
// this program's own, encrypted cache, and goes with az logout.
//
//	az login
//	go run ./examples/azlogin https://vault.azure.net/.default
//
// The authority takes this program for Azure CLI: see package interop for what that
// means.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func main() {
	scope := "https://management.core.windows.net//.default"
	if len(os.Args) > 1 {
		scope = os.Args[1]
	}
	if err := run(context.Background(), scope); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, scope string) error {
	az, err := interop.AzureCLI(interop.Options{})
	if err != nil {
		return err
	}
	tokens, err := tokenkeep.Open(ctx, tokenkeep.Config{
		Name:           "contoso-example-azlogin",
		Follow:         []persistence.Neighbour{az},
		Store:          os.Getenv("CONTOSO_STORE"),
		AllowPlaintext: os.Getenv("CONTOSO_STORE") == "plaintext",
	})
	if err != nil {
		return err
	}
	http, err := demo.HTTPClient() // a real program does not need it
	if err != nil {
		return err
	}
	client, err := public.New(interop.AzureCLIClientID, public.WithAuthority("https://login.microsoftonline.com/organizations"),
		public.WithCache(tokens), public.WithClientCapabilities([]string{"CP1"}), public.WithHTTPClient(http))
	if err != nil {
		return err
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	if len(accounts) == 0 {
		return errors.New("nobody is signed in: run az login")
	}
	who := accounts[0]
	result, err := client.AcquireTokenSilent(ctx, []string{scope}, public.WithSilentAccount(who), public.WithTenantID(who.Realm))
	if err != nil {
		return fmt.Errorf("az login may have to be repeated: %w", err)
	}
	fmt.Printf("%s: a token until %s, %s\n", who.PreferredUsername, result.ExpiresOn.Format(time.TimeOnly), from(result))
	return nil
}

func from(r public.AuthResult) string {
	if r.Metadata.TokenSource == public.TokenSourceCache {
		return "which was there"
	}
	return "from a refresh"
}
