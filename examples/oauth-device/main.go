// Oauth-device signs a user in with a device code (RFC 8628), as a program on a
// server or a television does, and stores the tokens with tokenkeep: the next run
// asks nobody, and runs at the same time refresh only once.
//
//	go run ./examples/oauth-device
//	go run ./examples/oauth-device -provider github -client-id ID -api https://api.github.com/user
//
// Without -provider it runs against a test provider that it starts on loopback (see
// demo.go), so it needs no account and no network. Your own program needs only what
// is in this file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/endpoints"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

var (
	provider       = flag.String("provider", "", "one of github, gitlab, google and microsoft; empty runs the demo")
	clientID       = flag.String("client-id", "", "`id` of your app at the provider")
	scopes         = flag.String("scopes", "", "the `permissions` to ask for, separated by spaces")
	api            = flag.String("api", "", "`URL` to call with the token")
	refresh        = flag.Bool("refresh", false, "get a new access token though the old one is good")
	signOut        = flag.Bool("sign-out", false, "remove the tokens")
	store          = flag.String("store", "", "where to keep the tokens: keyring, plaintext or memory")
	allowPlaintext = flag.Bool("allow-plaintext", false, "permit an unencrypted file where nothing safer works")
)

var providers = map[string]oauth2.Endpoint{
	"github": endpoints.GitHub, "gitlab": endpoints.GitLab, "google": endpoints.Google, "microsoft": endpoints.AzureAD("common"),
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config := tokenkeep.Config{Name: "tokenkeep-oauth-device", Store: *store, AllowPlaintext: *allowPlaintext}
	conf := &oauth2.Config{ClientID: *clientID, Scopes: strings.Fields(*scopes)}
	show := showCode
	if *provider == "" {
		stop, err := demo(&config, conf, &show)
		if err != nil {
			return err
		}
		defer stop()
	} else {
		var ok bool
		if conf.Endpoint, ok = providers[*provider]; !ok {
			return fmt.Errorf("-provider is one of %s", strings.Join(slices.Sorted(maps.Keys(providers)), ", "))
		}
	}

	// These two calls are all that is needed to store the tokens.
	cache, err := tokenkeep.Open(ctx, config)
	if err != nil {
		return err
	}
	source, err := tokensource.New(ctx, cache, "oauth-device "+*provider, conf, options...)
	if err != nil {
		return err
	}

	if *signOut {
		if err := source.Delete(ctx); err != nil {
			return err
		}
		fmt.Println("Signed out: the tokens are removed. The provider's settings page ends the sign-in there.")
		return nil
	}
	token, err := source.Token()
	how := "the token of an earlier run was still there, nobody was asked"
	if errors.Is(err, tokensource.ErrSignInRequired) {
		how = "by device code, this once. Run it again, and nobody will be asked"
		if token, err = signIn(ctx, conf, show); err == nil {
			err = source.Save(ctx, token)
		}
	} else if err == nil && *refresh {
		how = "the access token was renewed, nobody was asked"
		source.Invalidate(token) // as after the status 401
		token, err = source.Token()
	}
	if err != nil {
		return err
	}
	fmt.Printf("Signed in: %s.\n", how)
	if !token.Expiry.IsZero() {
		fmt.Printf("The access token is good until %s.\n", token.Expiry.Local().Format(time.TimeOnly))
	}
	if *api == "" {
		return nil
	}
	res, err := oauth2.NewClient(ctx, source).Get(*api)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	fmt.Printf("The API answers %s: %s\n", res.Status, body)
	return err
}

// signIn asks the user to sign in on any device that has a browser.
func signIn(ctx context.Context, conf *oauth2.Config, show func(context.Context, *oauth2.DeviceAuthResponse) error) (*oauth2.Token, error) {
	code, err := conf.DeviceAuth(ctx)
	if err != nil {
		return nil, err
	}
	if err := show(ctx, code); err != nil {
		return nil, err
	}
	return conf.DeviceAccessToken(ctx, code) // waits for the user
}

func showCode(_ context.Context, code *oauth2.DeviceAuthResponse) error {
	fmt.Printf("To sign in, open %s and enter the code %s.\n", code.VerificationURI, code.UserCode)
	return nil
}
