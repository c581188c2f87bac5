// Migrate moves a program from what it has used to tokenkeep. Its users stay signed
// in, and nothing is left where it was.
//
//	go run ./examples/migrate -from ~/.contoso/msal.cache
//	go run ./examples/migrate -dpapi FILE
//	go run ./examples/migrate -keyring SERVICE -user USER
//	go run ./examples/migrate -token token.json
//
// That is: the plaintext file of Microsoft's MSAL extensions for Go, their file on
// Windows, an MSAL cache in an item of zalando/go-keyring, and the token file of a
// program that uses package oauth2. The origins are in origins.go. Call Adopt when
// your program starts, for a release or two.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

var (
	from    = flag.String("from", "", "the old cache `file`, in plain text")
	blob    = flag.String("dpapi", "", "the old cache `file`, encrypted by DPAPI")
	service = flag.String("keyring", "", "the old keyring item's `service`")
	user    = flag.String("user", "", "the old keyring item's `user`")
	token   = flag.String("token", "", "the old token `file`")
)

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
		Name:           "contoso-example-migrate",
		Store:          os.Getenv("CONTOSO_STORE"),
		AllowPlaintext: os.Getenv("CONTOSO_STORE") == "plaintext",
	})
	if err != nil {
		return err
	}
	var old []origin
	if *from != "" {
		old = append(old, plainFile(*from))
	}
	if *blob != "" {
		old = append(old, dpapiFile(*blob))
	}
	if *service != "" {
		old = append(old, goKeyringItem(*service, *user))
	}
	for _, o := range old {
		if err := adopt(ctx, tokens, o); err != nil {
			return err
		}
	}
	if *token != "" {
		if err := adoptToken(ctx, tokens, *token); err != nil {
			return err
		}
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

// adopt moves an old MSAL cache into tokens. If the user has signed in again since,
// both are merged. A crash in between loses nothing: the next start continues.
func adopt(ctx context.Context, tokens *persistence.Cache, old origin) error {
	stored, err := tokens.Adopt(ctx, old.read, old.remove)
	// With the operation "adopt" it is the old cache that is damaged: a process was killed
	// while it wrote, and nobody can read that. With another operation it is what is stored
	// here, and the old cache must stay.
	if e := (*persistence.Error)(nil); errors.As(err, &e) && e.Op == "adopt" && errors.Is(err, persistence.ErrCorrupt) {
		return old.remove(ctx)
	}
	if err != nil {
		return err
	}
	if stored {
		fmt.Println("The sign-in was moved. It is kept in " + tokens.Describe().Location + " now.")
	}
	return nil
}

// adoptToken moves an old token file into tokens.
func adoptToken(ctx context.Context, tokens *persistence.Cache, path string) error {
	source, err := tokensource.New(ctx, tokens, "contoso", &oauth2.Config{
		ClientID: "contoso", Endpoint: oauth2.Endpoint{TokenURL: "https://login.contoso.example/token"},
	})
	if err != nil {
		return err
	}
	read, remove := tokenFile(path)
	stored, err := source.Adopt(ctx, read, remove)
	if err != nil {
		return err
	}
	if stored {
		fmt.Println("The token was moved. It is kept in " + tokens.Describe().Location + " now.")
	}
	return nil
}
