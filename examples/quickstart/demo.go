package main

// Only the demo needs this: a test authority instead of Microsoft's.

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/fallback"
)

var byHand = flag.Bool("by-hand", false, "in the demo, open the page and enter the code yourself")

// demo starts an authority on loopback and makes the program use it. Its state
// is kept, so that the next run's authority accepts this run's refresh tokens.
func demo(config *tokenkeep.Config, app *app) (stop func(), err error) {
	fmt.Print(`This is a demo: the authority is a pretend one on this machine, its tokens are
worth nothing. With -client-id and -tenant you sign in to Microsoft Entra ID.

`)
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	server, err := entratest.Start(entratest.Options{StateFile: filepath.Join(dir, "tokenkeep-quickstart", "authority.json")})
	if err != nil {
		return nil, err
	}
	config.Name += "-demo" // pretend accounts have no place among real ones
	if !config.AllowPlaintext {
		config.AllowPlaintext = true
		tell := config.Warn
		config.Warn = func(w fallback.Warning) {
			tell(w)
			if w.Backend == "plaintext" {
				fmt.Print("The demo goes on, since its tokens are worth nothing. With -client-id it would stop\nhere, unless you set " +
					*passphraseEnv + " to a passphrase or pass -allow-plaintext.\n\n")
			}
		}
	}
	app.id = "11111111-2222-4333-8444-555555555555"
	app.authority = entratest.Authority(entratest.Contoso)
	app.http = server.Client()
	app.show = func(ctx context.Context, code public.DeviceCode) error {
		if err := showCode(ctx, code); err != nil || *byHand {
			return err
		}
		fmt.Printf("(The demo does that for you, as %s. With -by-hand you do.)\n\n", entratest.Alice.Username)
		return entratest.Approve(ctx, app.http, code.Result.VerificationURL, code.Result.UserCode, entratest.Alice.Username)
	}
	return func() { server.Close() }, nil
}
