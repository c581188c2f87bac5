// Headless is a service on a server: it has no desktop, no keyring and no user to
// ask. It signs in with its own secret, and stores its token encrypted, so that a
// restart needs no new token: with a key from a file, or a passphrase from the
// environment.
//
//	CONTOSO_KEY_FILE=/run/secrets/key go run ./examples/headless
//	CONTOSO_PASSPHRASE='a long one' go run ./examples/headless
//
// Docker and Kubernetes mount such a file; systemd has LoadCredential for it, and sets
// a variable with EnvironmentFile. Package encrypted also takes the key from a command
// or from the program, as a key management service gives it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func passphrase(context.Context) ([]byte, error) {
	if p := os.Getenv("CONTOSO_PASSPHRASE"); p != "" {
		return []byte(p), nil
	}
	return nil, errors.New("CONTOSO_PASSPHRASE is not set")
}

func run(ctx context.Context) error {
	authority, err := demo.Start("headless")
	if err != nil {
		return err
	}
	defer authority.Close()

	config := tokenkeep.Config{
		Name:       "contoso-example-service",
		Dir:        os.Getenv("STATE_DIRECTORY"), // systemd's; "" means the user's own folder
		Store:      "passphrase",                 // and nothing else, even if a keyring is there
		Passphrase: passphrase,
	}
	if path := os.Getenv("CONTOSO_KEY_FILE"); path != "" {
		config.Store, config.Key = "key", encrypted.KeyFile(path)
	}
	tokens, err := tokenkeep.Open(ctx, config)
	if err != nil {
		return err
	}
	secret, err := confidential.NewCredFromSecret(demo.ServerSecret)
	if err != nil {
		return err
	}
	client, err := confidential.New(authority.URL, demo.ServerID, secret, confidential.WithHTTPClient(authority.Client), confidential.WithCache(tokens))
	if err != nil {
		return err
	}
	result, err := client.AcquireTokenByCredential(ctx, []string{"https://graph.microsoft.com/.default"}) // looks into the cache first
	if err != nil {
		return err
	}
	from := "the authority"
	if result.Metadata.TokenSource == confidential.TokenSourceCache {
		from = "the cache"
	}
	fmt.Printf("A token from %s, good until %s.\n", from, result.ExpiresOn.Local().Format("15:04"))
	return nil
}
