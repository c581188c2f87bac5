package tokensource_test

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

// "contoso-cli logout --all" revokes the tokens of every key at the provider and
// removes them. Neither needs the configuration that they were made with.
func ExampleKeys() {
	ctx := context.Background()
	cache, err := persistence.New(persistence.NewMemory()) // or tokenkeep.Open
	if err != nil {
		panic(err)
	}
	for _, host := range []string{"a.example", "b.example"} { // sign-ins
		source, err := tokensource.New(ctx, cache, host, &oauth2.Config{
			ClientID: "contoso-cli", Endpoint: oauth2.Endpoint{TokenURL: "https://" + host + "/oauth/token"},
		})
		if err == nil {
			err = source.Save(ctx, &oauth2.Token{AccessToken: "at", RefreshToken: "rt of " + host})
		}
		if err != nil {
			panic(err)
		}
	}
	revoke := func(host, refreshToken string) error { // RFC 7009: a POST to the provider
		fmt.Println("revoked the", refreshToken)
		return nil
	}

	keys, err := tokensource.Keys(ctx, cache)
	if err != nil {
		panic(err)
	}
	for _, host := range keys {
		source, err := tokensource.New(ctx, cache, host, &oauth2.Config{})
		if err != nil {
			panic(err)
		}
		token, err := source.Load(ctx)
		if errors.Is(err, persistence.ErrNotFound) { // another process was faster
			continue
		}
		if err != nil {
			panic(err)
		}
		if err := revoke(host, token.RefreshToken); err != nil {
			fmt.Println(err) // what is stored goes all the same
		}
		if err := source.Delete(ctx); err != nil {
			panic(err)
		}
	}
	keys, err = tokensource.Keys(ctx, cache)
	fmt.Println("left:", keys, err)
	// Output:
	// revoked the rt of a.example
	// revoked the rt of b.example
	// left: [] <nil>
}
