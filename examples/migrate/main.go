// Migrate moves a program from Microsoft's MSAL extensions for Go to tokenkeep. Its
// users stay signed in.
//
//	go run ./examples/migrate -from ~/.contoso/msal.cache
//
// It is for programs that used the extensions' plaintext file (package
// accessor/file): that file holds MSAL's JSON, at the path that the program chose,
// and its lock file has the suffix ".lockfile". Call adopt when your program starts,
// for a release or two.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const name = "contoso-example-migrate"

var from = flag.String("from", "", "the old cache `file`")

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	authority, err := demo.Start("migrate")
	if err != nil {
		return err
	}
	defer authority.Close()
	tokens, err := tokenkeep.Open(ctx, tokenkeep.Config{
		Name:           name,
		Store:          os.Getenv("CONTOSO_STORE"),
		AllowPlaintext: os.Getenv("CONTOSO_STORE") == "plaintext",
	})
	if err != nil {
		return err
	}
	if err := adopt(ctx, tokens, *from); err != nil {
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
	for _, account := range accounts {
		if _, err := client.AcquireTokenSilent(ctx, []string{"User.Read"}, public.WithSilentAccount(account)); err != nil {
			return err
		}
		fmt.Printf("%s is still signed in.\n", account.PreferredUsername)
	}
	return nil
}

// adopt moves the content of the old file into tokens. Move removes the file only
// after it has read the tokens back. A crash in between loses nothing: the next
// start continues. If the user has signed in again since, both are merged.
func adopt(ctx context.Context, tokens *persistence.Cache, path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // done before, or never used
	}
	if err != nil {
		return err
	}
	if !json.Valid(data) { // a process was killed while it wrote: nobody can read that
		return os.Remove(path)
	}
	old, err := fallback.NewInsecurePlaintextFile(path, func(fallback.Warning) {}, &fallback.Options{
		Lock: persistence.NewFileLock(filepath.Join(filepath.Dir(tokens.Describe().Location), name+".old.lock")),
	})
	if err != nil {
		return err
	}
	if err := persistence.Move(ctx, old, tokens.Backend()); err != nil {
		return err
	}
	fmt.Println("The sign-in was moved. It is kept in " + tokens.Describe().Location + " now.")
	os.Remove(path + ".lockfile")
	return nil
}
