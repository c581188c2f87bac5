// Quickstart signs a user in with MSAL Go and a device code, and stores the tokens
// with tokenkeep, so that the next run does not ask again.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -client-id ID -tenant TENANT
//
// Without -client-id it runs against a test authority that it starts on loopback
// (see demo.go), so it needs no account and no network. Your own program needs only
// what is in this file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var (
	clientID       = flag.String("client-id", "", "application `id` of your app in Microsoft Entra ID; empty runs the demo")
	tenant         = flag.String("tenant", "common", "your tenant's `id` or domain name")
	scope          = flag.String("scope", "User.Read", "the `permission` to ask for")
	signOut        = flag.Bool("sign-out", false, "sign out and remove the tokens")
	wish           = flag.String("store", "", "where to keep the tokens: keyring, passphrase, kernel, plaintext or memory")
	allowPlaintext = flag.Bool("allow-plaintext", false, "permit an unencrypted file where there is no keyring, or with -store plaintext")
	passphraseEnv  = flag.String("passphrase-env", "TOKENKEEP_PASSPHRASE", "environment `variable` with a passphrase to encrypt the tokens with")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\n"+explain(err))
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config := tokenkeep.Config{
		Name:           "tokenkeep-quickstart",
		AllowPlaintext: *allowPlaintext,
		Store:          *wish,
		Warn:           warn,
		Logger:         slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), // the choice is printed below, for a person
		Passphrase: func(context.Context) ([]byte, error) {
			if p := os.Getenv(*passphraseEnv); p != "" {
				return []byte(p), nil
			}
			return nil, fmt.Errorf("%s is not set", *passphraseEnv)
		},
	}
	app := app{*clientID, "https://login.microsoftonline.com/" + *tenant, http.DefaultClient, showCode}
	if *clientID == "" {
		stop, err := demo(&config, &app)
		if err != nil {
			return err
		}
		defer stop()
	}

	// These two calls are all that is needed to store the tokens.
	tokens, err := tokenkeep.Open(ctx, config)
	if err != nil {
		return err
	}
	client, err := public.New(app.id, public.WithAuthority(app.authority), public.WithHTTPClient(app.http), public.WithCache(tokens))
	if err != nil {
		return err
	}

	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	if *signOut {
		return removeAll(ctx, client, accounts)
	}
	result, how, err := signIn(ctx, client, tokens, accounts, app.show)
	if err != nil {
		return err
	}
	fmt.Printf("Signed in as %s: %s.\n", result.Account.PreferredUsername, how)
	fmt.Printf("The access token is good until %s.\n\n", result.ExpiresOn.Local().Format(time.TimeOnly))
	describe(tokens.Describe())
	return nil
}

// app is the application that the user signs in to.
type app struct {
	id        string
	authority string
	http      *http.Client
	show      func(context.Context, public.DeviceCode) error
}

// signIn returns an access token: from the cache, or with its refresh token, or if
// neither works by asking the user to sign in. how says which.
func signIn(ctx context.Context, client public.Client, tokens *persistence.Cache, accounts []public.Account,
	show func(context.Context, public.DeviceCode) error) (result public.AuthResult, how string, err error) {
	scopes := []string{*scope}
	for _, account := range accounts {
		// Exclusive: two runs at once must not spend one refresh token twice.
		err := tokens.Exclusive(ctx, account.HomeAccountID, func(ctx context.Context) (err error) {
			result, err = client.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(account))
			return err
		})
		var target *persistence.Error
		if errors.As(err, &target) || ctx.Err() != nil {
			return result, "", err // no reason to bother the user
		}
		if err != nil {
			fmt.Printf("%s has to sign in again.\n", account.PreferredUsername) // expired, revoked, or never consented to this scope
			continue
		}
		if result.Metadata.TokenSource == public.TokenSourceCache {
			return result, "the tokens of an earlier run were still there, nobody was asked", nil
		}
		return result, "the access token was renewed with the refresh token of an earlier run, nobody was asked", nil
	}

	code, err := client.AcquireTokenByDeviceCode(ctx, scopes)
	if err != nil {
		return result, "", err
	}
	if err := show(ctx, code); err != nil {
		return result, "", err
	}
	result, err = code.AuthenticationResult(ctx) // waits for the user
	return result, "by device code, this once. Run it again, and nobody will be asked", err
}

func showCode(_ context.Context, code public.DeviceCode) error {
	fmt.Println(code.Result.Message)
	return nil
}

func removeAll(ctx context.Context, client public.Client, accounts []public.Account) error {
	if len(accounts) == 0 {
		fmt.Println("Nobody is signed in.")
	}
	for _, account := range accounts {
		if err := client.RemoveAccount(ctx, account); err != nil {
			return err
		}
		fmt.Printf("Signed out %s: the tokens are removed.\n", account.PreferredUsername)
	}
	return nil
}

// describe tells the user where the tokens are.
func describe(d persistence.Description) {
	switch {
	case d.Location == "":
		fmt.Println("The tokens are in memory only, and gone with this run.")
	case d.Encrypted:
		fmt.Printf("The tokens are kept in\n  %s\nencrypted; the key comes from: %s.\n", d.Location, d.KeySource)
	default:
		fmt.Printf("The tokens are kept in\n  %s\nNOT encrypted.\n", d.Location)
	}
}

// warn shows a warning of tokenkeep to the user.
func warn(w fallback.Warning) {
	fmt.Println("WARNING: " + w.Message)
	for _, line := range []struct{ label, text string }{{"where", w.Location}, {"why", w.Reason}, {"what helps", w.Remedy}} {
		if line.text != "" {
			fmt.Printf("  %s: %s\n", line.label, line.text)
		}
	}
	fmt.Println()
}

// explain turns an error into advice for the user.
func explain(err error) string {
	var b strings.Builder
	var none *fallback.NoneError
	if errors.As(err, &none) {
		b.WriteString("Nobody was signed in, since there is no place to keep the tokens:\n\n")
		for _, r := range none.Refusals {
			fmt.Fprintf(&b, "  %s: %s.\n", r.Candidate, strings.TrimSuffix(r.Reason(), "."))
			if remedy := r.Remedy(); remedy != "" {
				fmt.Fprintf(&b, "    %s\n", remedy)
			}
		}
		b.WriteString("\nWhat you can do:\n")
		if *wish != "" {
			fmt.Fprintf(&b, "  - Leave out -store %s, so that other places are tried too.\n", *wish)
		}
		fmt.Fprintf(&b, `  - Set %s to a passphrase; the tokens are encrypted with it.
  - Pass -allow-plaintext -store plaintext, if everybody who can read your
    files may sign in as you.`, *passphraseEnv)
		return b.String()
	}
	if e, ok := err.(*persistence.Error); ok && e.Remedy != "" {
		what := *e
		what.Remedy = ""
		return what.Error() + ".\n\nWhat you can do: " + e.Remedy
	}
	return err.Error()
}
