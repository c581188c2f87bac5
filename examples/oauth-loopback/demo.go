package main

// Only the demo needs this: a test provider.

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

var byHand = flag.Bool("by-hand", false, "in the demo, sign in in the browser yourself")

// options are what only the demo needs: its provider is at another port in each
// run, so what is stored must not be bound to the token endpoint.
var options []tokensource.Option

// demo starts a provider on loopback and makes the program use it. Its state is
// kept, so that the next run's provider knows this run's tokens.
func demo(config *tokenkeep.Config, conf *oauth2.Config, browse *func(ctx context.Context, url string) error) (stop func(), err error) {
	fmt.Print("This is a demo: the provider is a pretend one on this machine, its tokens are\nworth nothing. See -help for real ones.\n\n")
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	server, err := oauthserver.Start(oauthserver.Options{StateFile: filepath.Join(dir, "tokenkeep-oauth-loopback", "provider.json")})
	if err != nil {
		return nil, err
	}
	config.Name += "-demo"       // not among real accounts
	config.AllowPlaintext = true // the tokens are worth nothing
	*conf = *server.Config()
	options = append(options, tokensource.WithIssuer("https://provider.example"))
	if *api == "" {
		*api = server.URL + "/me"
	}
	if !*byHand {
		*browse = func(ctx context.Context, url string) error {
			fmt.Print("(The demo does that for you, as alice. With -by-hand you do.)\n\n")
			return oauthserver.Browse(ctx, url, "alice")
		}
	}
	return func() { server.Close() }, nil
}
