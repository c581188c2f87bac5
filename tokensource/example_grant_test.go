package tokensource_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

// A job signs in as itself. Of all its processes one asks for a token.
func ExampleGrant() {
	ctx := context.Background()
	requests := 0
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests++
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"at","token_type":"Bearer","expires_in":3600}`)
	}))
	defer provider.Close()
	cache, err := persistence.New(persistence.NewMemory())
	if err != nil {
		panic(err)
	}
	conf := &clientcredentials.Config{ClientID: "job", ClientSecret: "secret", TokenURL: provider.URL}
	for range 3 { // three runs of the job
		source, err := tokensource.New(ctx, cache, "job", tokensource.Grant(conf.Token))
		if err != nil {
			panic(err)
		}
		token, err := source.Token()
		fmt.Println(token.AccessToken, err)
	}
	fmt.Println("requests:", requests)
	// Output:
	// at <nil>
	// at <nil>
	// at <nil>
	// requests: 1
}

// transport is an http.RoundTripper for an API that may refuse a token before its
// expiry: it tells the Source, and tries once more with another token.
type transport struct{ source *tokensource.Source }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	for again := false; ; again = true {
		token, err := t.source.TokenContext(r.Context())
		if err != nil {
			return nil, err
		}
		sent := r.Clone(r.Context())
		if again && r.GetBody != nil {
			if sent.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
		token.SetAuthHeader(sent)
		res, err := http.DefaultTransport.RoundTrip(sent)
		if err != nil || res.StatusCode != http.StatusUnauthorized {
			return res, err
		}
		t.source.Invalidate(token) // the next call gets another one
		if again || r.Body != nil && r.GetBody == nil {
			return res, nil
		}
		res.Body.Close()
	}
}

// An HTTP client whose requests go on when an API refuses a token that has not
// expired.
func ExampleSource_Invalidate_transport() {
	server, conf := provider()
	defer server.Close()
	ctx := context.Background()
	cache, err := persistence.New(persistence.NewMemory())
	if err != nil {
		panic(err)
	}
	source, err := tokensource.New(ctx, cache, "example", conf)
	if err != nil {
		panic(err)
	}
	token, err := server.SignIn("alice")
	if err == nil {
		err = source.Save(ctx, token)
	}
	if err == nil {
		err = server.RevokeAccess(token.AccessToken)
	}
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: transport{source}}
	res, err := client.Get(server.URL + "/me")
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Status)
	// Output:
	// 200 OK
}

// A client that registers itself (RFC 7591) knows its own ID and secret only from
// what an earlier run has stored. The key has the ID in it: tokens of an older
// registration are not sent anywhere.
func ExampleNew_registration() {
	ctx := context.Background()
	cache, err := persistence.New(persistence.NewMemory())
	if err != nil {
		panic(err)
	}
	type registration struct{ ClientID, ClientSecret string }
	open := func() (*tokensource.Source, error) {
		entries, err := cache.Entries("contoso-cli")
		if err != nil {
			return nil, err
		}
		var client registration
		data, err := entries.Get(ctx, "registration")
		if errors.Is(err, persistence.ErrNotFound) {
			fmt.Println("registering")
			client = registration{"generated-id", "generated-secret"} // the answer to a registration request
			if data, err = json.Marshal(client); err == nil {
				err = entries.Set(ctx, "registration", data)
			}
		}
		if err == nil {
			err = json.Unmarshal(data, &client)
		}
		if err != nil {
			return nil, err
		}
		return tokensource.New(ctx, cache, "contoso "+client.ClientID, &oauth2.Config{
			ClientID: client.ClientID, ClientSecret: client.ClientSecret,
			Endpoint: oauth2.Endpoint{TokenURL: "https://login.contoso.example/token"},
		})
	}
	for range 2 {
		source, err := open()
		fmt.Println(source, err)
	}
	// Output:
	// registering
	// tokensource.Source "contoso generated-id" <nil>
	// tokensource.Source "contoso generated-id" <nil>
}
