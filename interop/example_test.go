package interop_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A Go program gets a token from Azure CLI's sign-in, without running az. What a
// refresh brings is kept in a cache of its own.
func ExampleAzureCLI() {
	az, err := interop.AzureCLI(interop.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	cache, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli", Follow: []persistence.Neighbour{az}})
	if err != nil {
		log.Fatal(err)
	}
	client, err := public.New(interop.AzureCLIClientID, public.WithAuthority("https://login.microsoftonline.com/organizations"),
		public.WithCache(cache), public.WithClientCapabilities([]string{"CP1"}))
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if len(accounts) == 0 {
		log.Fatal("nobody is signed in: run az login")
	}
	result, err := client.AcquireTokenSilent(ctx, []string{"https://management.core.windows.net//.default"}, public.WithSilentAccount(accounts[0]))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("a token until", result.ExpiresOn)
}

// Two programs with one client id share a file; a program with another client id
// sees none of it.
func ExampleFile() {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "cache.json")
	another, err := interop.File(path, interop.Options{Clients: []string{"another-client"}})
	if err != nil {
		log.Fatal(err)
	}
	const python = `{"RefreshToken": {"u.t-login.microsoftonline.com-refreshtoken-our-client--": {
	    "home_account_id": "u.t", "environment": "login.microsoftonline.com", "client_id": "our-client",
	    "credential_type": "RefreshToken", "secret": "…", "target": ""}}}`
	if err := os.WriteFile(path, []byte(python), 0o600); err != nil {
		log.Fatal(err)
	}
	shared, err := interop.File(path, interop.Options{Clients: []string{"our-client"}})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	_, err = shared.Load(ctx)
	fmt.Println("our client:", err)
	_, err = another.Load(ctx)
	fmt.Println("another client finds nothing:", errors.Is(err, persistence.ErrNotFound))
	fmt.Println(errors.Is(shared.Delete(ctx), interop.ErrReadOnly))
	// Output:
	// our client: <nil>
	// another client finds nothing: true
	// true
}
