package tokensource_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

// parameters is an http.RoundTripper for token requests that adds parameters to them.
type parameters url.Values

func (p parameters) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body.Close()
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	for name, values := range p {
		form[name] = values
	}
	encoded := form.Encode()
	sent := r.Clone(r.Context())
	sent.Body, sent.ContentLength = io.NopCloser(strings.NewReader(encoded)), int64(len(encoded))
	return http.DefaultTransport.RoundTrip(sent)
}

// A provider may want more in each token request than package oauth2 sends with a
// refresh: a resource (RFC 8707), as the authorization of MCP servers does, or an
// audience. The HTTP client adds it.
func ExampleNew_parameters() {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.FormValue("grant_type"), "for", r.FormValue("resource"))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"at","token_type":"Bearer","expires_in":3600}`)
	}))
	defer provider.Close()
	cache, err := persistence.New(persistence.NewMemory()) // or tokenkeep.Open
	if err != nil {
		panic(err)
	}

	const server = "https://mcp.contoso.example/mcp"
	client := &http.Client{Transport: parameters{"resource": {server}}}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
	source, err := tokensource.New(ctx, cache, server, &oauth2.Config{
		ClientID: "contoso-cli",
		Endpoint: oauth2.Endpoint{TokenURL: provider.URL, AuthStyle: oauth2.AuthStyleInParams},
	})
	if err != nil {
		panic(err)
	}
	if err := source.Save(ctx, &oauth2.Token{RefreshToken: "rt"}); err != nil { // from the sign-in
		panic(err)
	}
	token, err := source.Token()
	if err != nil {
		panic(err)
	}
	fmt.Println(token.AccessToken)
	// Output:
	// refresh_token for https://mcp.contoso.example/mcp
	// at
}
