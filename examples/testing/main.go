// Testing is a program that can be tested without the machine's keyring and
// without the internet: only main says which keyring and which authority it uses.
// Its tests, in main_test.go, use mock keyrings (package keyringtest) and a test
// authority (package entratest).
//
//	go run ./examples/testing
//	go test ./examples/testing
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const clientID = "11111111-2222-4333-8444-555555555555"

var scopes = []string{"User.Read"}

// machine is what the program needs of its surroundings.
type machine struct {
	dir     string // for the files; "" means the user's own folder
	keyring keyring.Keyring
	options []public.Option // the authority, and how to reach it
}

func main() {
	text, err := greet(context.Background(), machine{keyring: keyring.System()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(text)
}

// greet says who is signed in.
func greet(ctx context.Context, m machine) (string, error) {
	tokens, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-example-testing", Dir: m.dir, Keyring: m.keyring})
	if errors.Is(err, persistence.ErrKeyringLocked) {
		return "Unlock the keyring first.", nil
	}
	if err != nil {
		return "", err
	}
	client, err := public.New(clientID, append([]public.Option{public.WithCache(tokens)}, m.options...)...)
	if err != nil {
		return "", err
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return "", err
	}
	if len(accounts) == 0 {
		return "Nobody is signed in.", nil
	}
	user := accounts[0]
	_, err = client.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(user))
	var answer msal.CallErr
	switch {
	case errors.As(err, &answer) && answer.Resp != nil && answer.Resp.StatusCode == http.StatusBadRequest:
		return user.PreferredUsername + " must sign in again.", nil
	case err != nil: // no answer, or one that says to try again later: the sign-in stays
		return "", err
	}
	return "Hello, " + user.PreferredUsername + ".", nil
}
