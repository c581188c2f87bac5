// Testing is a program that is written so that it can be tested without the
// machine's keyring: main says which keyring, and nothing else does. Its tests
// are what this example is about; see main_test.go.
//
//	go run ./examples/testing
//	go test ./examples/testing
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func main() {
	text, err := greet(context.Background(), "", keyring.System())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(text)
}

// greet says who is signed in. dir is where the files lie, "" for the user's own
// folder.
func greet(ctx context.Context, dir string, k keyring.Keyring) (string, error) {
	tokens, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-example-testing", Dir: dir, Keyring: k})
	if errors.Is(err, persistence.ErrKeyringLocked) {
		return "Unlock the keyring first.", nil
	}
	if err != nil {
		return "", err
	}
	client, err := public.New("11111111-2222-4333-8444-555555555555", public.WithCache(tokens))
	if err != nil {
		return "", err
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return "", err
	}
	if len(accounts) == 0 {
		return "Hello, whoever you are.", nil
	}
	return "Hello, " + accounts[0].PreferredUsername + ".", nil
}
