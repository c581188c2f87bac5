package tokenkeep_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"runtime"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

// What may keep the cache differs from platform to platform, and the user may
// choose among it.
func ExampleConfig_order() {
	cfg := tokenkeep.Config{
		Name: "contoso-cli",
		Order: map[string][]string{
			"windows": {"dpapi"},
			"linux":   {"keyring", "passphrase"},
		}[runtime.GOOS], // elsewhere nil: the default
		Passphrase: func(context.Context) ([]byte, error) { return []byte(os.Getenv("CONTOSO_PASSPHRASE")), nil },
		Store:      os.Getenv("CONTOSO_STORE"), // such as "passphrase"
	}
	if _, err := tokenkeep.Open(context.Background(), cfg); err != nil {
		log.Print(err)
	}
}

// A settings page, or a command such as "contoso-cli status", says where the
// sign-in is kept and why.
func ExampleChoiceOf() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	c, err := tokenkeep.Open(context.Background(), tokenkeep.Config{
		Name:           "contoso-cli",
		Dir:            dir,
		Keyring:        keyringtest.NewAbsent(), // for this example; leave it nil
		Order:          []string{"keyring", "plaintext"},
		AllowPlaintext: true,
		Warn:           func(fallback.Warning) {},
		Logger:         slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	choice, _ := tokenkeep.ChoiceOf(c)
	fmt.Println("kept in:", choice.InUse.Backend)
	fmt.Println("chosen by:", choice.By)
	for _, r := range choice.Refusals {
		fmt.Println(r.Candidate+":", r.Reason())
	}
	// Output:
	// kept in: plaintext
	// chosen by: order
	// keyring: not available in this environment: no keyring program is running
}
