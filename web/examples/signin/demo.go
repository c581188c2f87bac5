package main

// What only the demo needs: a pretend authority instead of Microsoft's, and a
// pretend API.

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/web/discovery"
)

// MSAL renews a token that ends in less than five minutes.
var demoLifetime = flag.Duration("demo-lifetime", 5*time.Minute+30*time.Second, "in the demo, how `long` access tokens are good for")

const loginHost = "login.microsoftonline.com"

// demo starts an authority on loopback and makes the app use it. Its state is
// kept, so that it accepts the refresh tokens of the last run. The browser
// reaches it and the API through this server.
func demo(mux *http.ServeMux, a *app, secret *string) (end func(), err error) {
	fmt.Print("This is a demo: the authority and the API are pretend ones on this machine, their\ntokens are worth nothing. With -client-id you sign in to Microsoft Entra ID.\n\n")
	a.demo = true
	a.clientID, *secret = "22222222-3333-4444-8555-666666666666", rand.Text()
	server, err := entratest.Start(entratest.Options{Secrets: map[string]string{a.clientID: *secret},
		StateFile: filepath.Join(*dir, "demo-authority.json"), AllowReuse: true})
	if err != nil {
		return nil, err
	}
	server.SetLifetime(*demoLifetime, 0)
	a.authority, a.http = entratest.Authority(entratest.Contoso), server.Client()
	a.http.Transport = discovery.NewTransport(a.http.Transport)
	a.http.Timeout = 30 * time.Second

	const authority, api = "/pretend-authority", "/pretend-api/me"
	a.toBrowser = func(u string) string { return a.url + authority + strings.TrimPrefix(u, "https://"+loginHost) }
	mux.Handle(authority+"/", http.StripPrefix(authority, &httputil.ReverseProxy{
		Transport: a.http.Transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: loginHost}) },
	}))
	a.api = a.url + api
	mux.HandleFunc("GET "+api, pretendAPI)
	return func() { server.Close() }, nil
}

// pretendAPI says who a token is for. A real API checks the signature as well;
// this one cannot, since the pretend authority has a new key in each run and the
// tokens of the last one are still good.
func pretendAPI(w http.ResponseWriter, r *http.Request) {
	var claims struct {
		Name     string `json:"name"`
		Username string `json:"preferred_username"`
		Scopes   string `json:"scp"`
		Expires  int64  `json:"exp"`
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(token, ".")
	ok = ok && len(parts) == 3
	if ok {
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		ok = err == nil && json.Unmarshal(payload, &claims) == nil && time.Now().Unix() < claims.Expires
	}
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintln(w, `{"error":"the token is not good, or not any more"}`)
		return
	}
	json.NewEncoder(w).Encode(map[string]string{ //nolint:errcheck // the app has gone
		"displayName": claims.Name, "userPrincipalName": claims.Username, "permissions": claims.Scopes,
	})
}
