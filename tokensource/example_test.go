package tokensource_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

// provider is a pretend one on loopback.
func provider() (*oauthserver.Server, *oauth2.Config) {
	server, err := oauthserver.Start(oauthserver.Options{})
	if err != nil {
		panic(err)
	}
	return server, server.Config()
}

// A program signs in once, and calls an API with a client that adds the token.
func Example() {
	server, conf := provider() // conf would name your provider's endpoints
	defer server.Close()
	ctx := context.Background()

	cache, err := persistence.New(persistence.NewMemory()) // or tokenkeep.Open
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := tokensource.New(ctx, cache, "example", conf)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = source.Token()
	if errors.Is(err, tokensource.ErrSignInRequired) {
		fmt.Println("nobody is signed in yet")
		var token *oauth2.Token
		token, err = server.SignIn("alice") // conf.DeviceAccessToken, conf.Exchange, …
		if err == nil {
			err = source.Save(ctx, token)
		}
	}
	if err != nil {
		fmt.Println(err)
		return
	}

	res, err := oauth2.NewClient(ctx, source).Get(server.URL + "/me")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	var me struct{ User string }
	err = json.NewDecoder(res.Body).Decode(&me)
	fmt.Println(me.User, err)
	// Output:
	// nobody is signed in yet
	// alice <nil>
}

// An API may refuse a token that has not expired, because somebody has revoked it.
func ExampleSource_Invalidate() {
	server, conf := provider()
	defer server.Close()
	ctx := context.Background()
	cache, err := persistence.New(persistence.NewMemory())
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := tokensource.New(ctx, cache, "example", conf)
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := server.SignIn("alice")
	if err == nil {
		err = source.Save(ctx, token)
	}
	if err == nil {
		err = server.RevokeAccess(token.AccessToken)
	}
	if err != nil {
		fmt.Println(err)
		return
	}

	for range 2 {
		token, err := source.Token()
		if err != nil {
			fmt.Println(err)
			return
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/me", nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		token.SetAuthHeader(r)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		res.Body.Close()
		fmt.Println(res.Status)
		if res.StatusCode == http.StatusUnauthorized {
			source.Invalidate(token) // the next call refreshes
		}
	}
	// Output:
	// 401 Unauthorized
	// 200 OK
}

// What went wrong decides what to do next.
func ExampleSource_TokenContext() {
	server, conf := provider()
	defer server.Close()
	ctx := context.Background()
	cache, err := persistence.New(persistence.NewMemory())
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := tokensource.New(ctx, cache, "example", conf)
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := server.SignIn("alice")
	if err == nil {
		err = source.Save(ctx, token)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	source.Invalidate(token)
	server.Fail(1, oauthserver.Failure{Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable"})

	for range 2 {
		_, err := source.TokenContext(ctx)
		switch {
		case errors.Is(err, tokensource.ErrSignInRequired):
			fmt.Println("sign in again")
		case errors.Is(err, tokensource.ErrTemporary):
			fmt.Println("try again later:", err)
		default:
			fmt.Println(err)
		}
	}
	// Output:
	// try again later: tokenkeep: refresh oauth2 example: temporary failure: the provider answered temporarily_unavailable. Nothing is lost; try again later.
	// <nil>
}
