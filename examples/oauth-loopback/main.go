// Oauth-loopback signs a user in with the system's browser, as a program on a
// desktop does (RFC 8252: a redirect to loopback, with PKCE, RFC 7636), and stores
// the tokens with tokenkeep: the next run asks nobody, and runs at the same time
// refresh only once.
//
//	go run ./examples/oauth-loopback
//	go run ./examples/oauth-loopback -provider google -client-id ID -client-secret SECRET -scopes "openid email"
//
// Without -provider it runs against a test provider that it starts on loopback (see
// demo.go), so it needs no account and no network. Your own program needs only what
// is in this file.
package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
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
	clientSecret   = flag.String("client-secret", "", "`secret` of your app, where the provider wants one of desktop programs too; it protects nothing")
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
	config := tokenkeep.Config{Name: "tokenkeep-oauth-loopback", Store: *store, AllowPlaintext: *allowPlaintext}
	conf := &oauth2.Config{ClientID: *clientID, ClientSecret: *clientSecret, Scopes: strings.Fields(*scopes)}
	browse := openBrowser
	if *provider == "" {
		stop, err := demo(&config, conf, &browse)
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
	source, err := tokensource.New(ctx, cache, "oauth-loopback "+*provider, conf, options...)
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
		how = "in the browser, this once. Run it again, and nobody will be asked"
		if token, err = signIn(ctx, *conf, browse); err == nil {
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

// signIn asks the user to sign in in the browser, which then returns to this program.
func signIn(ctx context.Context, conf oauth2.Config, browse func(ctx context.Context, url string) error) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	// Loopback only, on a port that is free (RFC 8252, sections 7.3 and 8.3).
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	conf.RedirectURL = "http://" + l.Addr().String() + "/callback"
	state, verifier := rand.Text(), oauth2.GenerateVerifier()

	type answer struct {
		code string
		err  error
	}
	answers := make(chan answer, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			http.Error(w, "This is not the answer to our question.", http.StatusBadRequest) // and the right one may still come
			return
		}
		a := answer{code: q.Get("code")}
		if a.code == "" {
			a.err = fmt.Errorf("the provider did not sign you in: %q", q.Get("error"))
		}
		fmt.Fprintln(w, "You may close this page and go back to the program.")
		select {
		case answers <- a:
		default: // it had come before
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l) //nolint:errcheck // always an error: that of Shutdown
	defer func() {
		// Let the browser finish loading its page, but not for long.
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(wait) != nil {
			server.Close()
		}
	}()

	// AccessTypeOffline: Google gives a refresh token only if asked for one.
	url := conf.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oauth2.AccessTypeOffline)
	fmt.Printf("Sign in in the browser. If none opens, go to\n  %s\n", url)
	if err := browse(ctx, url); err != nil {
		fmt.Println("The browser does not open:", err)
	}
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		return conf.Exchange(ctx, a.code, oauth2.VerifierOption(verifier))
	case <-ctx.Done():
		return nil, fmt.Errorf("nobody has signed in: %w", ctx.Err())
	}
}

// openBrowser opens the system's browser.
func openBrowser(_ context.Context, url string) error {
	command := []string{"xdg-open", url}
	switch runtime.GOOS {
	case "darwin":
		command[0] = "open"
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", url}
	}
	return exec.Command(command[0], command[1:]...).Start()
}
