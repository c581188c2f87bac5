package tokenkeep_test

//lint:file-ignore SA4006 the README leaves out what is the same everywhere: what is done with an error

import (
	"context"
	"errors"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

// The functions below hold the code of README.md, line by line, so that it compiles. A
// law of internal/test/lint compares them. Nothing calls them.
var _ = []any{readmeMSAL, readmeOAuth, readmeEntries, readmeFollow}

func readmeMSAL(ctx context.Context) error {
	c, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli"})
	if err != nil {
		return err // says what does not work on this machine, and what would help
	}
	client, err := public.New(clientID, public.WithCache(c)) // MSAL Go
	_ = client
	return err
}

func readmeOAuth(ctx context.Context, conf *oauth2.Config, signIn func(context.Context, *oauth2.Config) (*oauth2.Token, error)) error {
	c, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli"})
	if err != nil {
		return err
	}
	source, err := tokensource.New(ctx, c, "github", conf) // your *oauth2.Config
	if err != nil {
		return err
	}
	if _, err := source.Token(); errors.Is(err, tokensource.ErrSignInRequired) {
		token, err := signIn(ctx, conf) // see the examples
		if err != nil {
			return err
		}
		if err := source.Save(ctx, token); err != nil {
			return err
		}
	} else if err != nil {
		return err // tokensource.ErrTemporary: try again later, nothing is lost
	}
	client := oauth2.NewClient(ctx, source)
	_ = client
	return nil
}

var secret []byte

func readmeEntries(ctx context.Context, c *persistence.Cache) ([]byte, error) {
	secrets, err := c.Entries("contoso-cli")
	err = secrets.Set(ctx, "client secret", secret)
	secret, err := secrets.Get(ctx, "client secret") // persistence.ErrNotFound if it is not stored
	return secret, err
}

func readmeFollow(ctx context.Context) error {
	az, err := interop.AzureCLI(interop.Options{})
	c, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli", Follow: []persistence.Neighbour{az}})
	client, err := public.New(interop.AzureCLIClientID, public.WithCache(c), public.WithClientCapabilities([]string{"CP1"}))
	_ = client
	return err
}
