package tokenkeep_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log"
	"log/slog"
	"os"
	"runtime"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A command line program: the user signs in once, and the next run finds the tokens.
func Example() {
	authority, machine := authority(), newPC()
	defer authority.Close()
	defer machine.remove()
	ctx := context.Background()
	for range 2 { // two runs
		c, err := tokenkeep.Open(ctx, machine.config("contoso-cli")) // tokenkeep.Config{Name: "contoso-cli"}
		if err != nil {
			log.Fatal(err) // it says what does not work on this machine, and what would help
		}
		client, err := public.New(clientID, public.WithCache(c),
			public.WithAuthority(entratest.Authority("organizations")), public.WithHTTPClient(authority.Client()))
		if err != nil {
			log.Fatal(err)
		}
		accounts, err := client.Accounts(ctx)
		if err != nil {
			log.Fatal(err)
		}
		scopes := []string{"User.Read"}
		if len(accounts) == 0 {
			code, err := client.AcquireTokenByDeviceCode(ctx, scopes)
			if err != nil {
				log.Fatal(err)
			}
			show(authority, code.Result) // fmt.Println(code.Result.Message)
			result, err := code.AuthenticationResult(ctx)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println("signed in as", result.Account.PreferredUsername)
			continue
		}
		result, err := client.AcquireTokenSilent(ctx, scopes, public.WithSilentAccount(accounts[0]))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("still signed in as", result.Account.PreferredUsername)
	}
	// Output:
	// signed in as alice@contoso.example
	// still signed in as alice@contoso.example
}

// "contoso-cli logout --all" removes every account, every token of package tokensource
// and the program's own secrets. [tokenkeep.Remove] does so too, without the key.
func Example_logoutAll() {
	authority, machine := authority(), newPC()
	defer authority.Close()
	defer machine.remove()
	ctx := context.Background()
	c, err := tokenkeep.Open(ctx, machine.config("contoso-cli"))
	if err != nil {
		log.Fatal(err)
	}
	secrets, err := c.Entries("contoso-cli")
	if err != nil {
		log.Fatal(err)
	}
	if err := secrets.Set(ctx, "client secret", []byte("xyzzy")); err != nil {
		log.Fatal(err)
	}
	for _, user := range []entratest.User{entratest.Alice, entratest.Bob} {
		if _, err := authority.SignIn(ctx, c, clientID, user, "User.Read"); err != nil {
			log.Fatal(err)
		}
	}

	if err := c.SignOutAll(ctx); err != nil {
		log.Fatal(err)
	}
	keys, err := secrets.Keys(ctx) // a sign-out leaves them
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range keys {
		if err := secrets.Delete(ctx, key); err != nil {
			log.Fatal(err)
		}
	}

	client, err := public.New(clientID, public.WithCache(c), public.WithHTTPClient(authority.Client()))
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := client.Accounts(ctx)
	fmt.Println("accounts:", len(accounts), err)
	keys, err = secrets.Keys(ctx)
	fmt.Println("secrets:", len(keys), err)
	// Output:
	// accounts: 0 <nil>
	// secrets: 0 <nil>
}

// In a container there is no keyring. The key is a variable or a mounted secret, and it
// is an error that nobody has set it: otherwise the sign-in would be kept elsewhere,
// until a restart.
func ExampleConfig_key() {
	machine := newPC()
	defer machine.remove()
	cfg := machine.config("contoso-job")
	cfg.Key = encrypted.Env("CONTOSO_EXAMPLE_KEY") // or encrypted.KeyFile("/run/secrets/contoso-key")
	cfg.Order = []string{"key"}
	ctx := context.Background()
	_, err := tokenkeep.Open(ctx, cfg)
	fmt.Println("without the key:", persistence.ClassOf(err))

	key := make([]byte, 32) // made once: openssl rand -base64 32
	rand.Read(key)
	os.Setenv("CONTOSO_EXAMPLE_KEY", base64.StdEncoding.EncodeToString(key))
	defer os.Unsetenv("CONTOSO_EXAMPLE_KEY")
	c, err := tokenkeep.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("with it:", c.Describe().Backend, c.Describe().KeySource)
	// Output:
	// without the key: unavailable
	// with it: encrypted env
}

// A credential helper runs often. What it warns of is shown with the sign-in, and not
// in every run.
func ExampleConfig_warn() {
	machine := newPC()
	defer machine.remove()
	machine.keyring.SetAbsent(true)
	for _, command := range []string{"login", "get-token", "get-token"} {
		cfg := machine.config("contoso-helper")
		cfg.Order, cfg.AllowPlaintext = []string{"keyring", "plaintext"}, true // without DPAPI, on Windows
		cfg.Warn = func(w fallback.Warning) {
			if command == "login" {
				fmt.Println("warning of:", w.Backend) // fmt.Fprintln(os.Stderr, w)
			}
		}
		if _, err := tokenkeep.Open(context.Background(), cfg); err != nil {
			log.Fatal(err)
		}
		fmt.Println(command)
	}
	// Output:
	// warning of: plaintext
	// login
	// get-token
	// get-token
}

const clientID = "11111111-0000-4000-8000-000000000001"

// authority returns a test authority. A program of yours signs in at the real one.
func authority() *entratest.Server {
	s, err := entratest.Start(entratest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	return s
}

// show stands for the user, who reads the code and signs in as Alice.
func show(s *entratest.Server, code public.DeviceCodeResult) {
	if err := entratest.Approve(context.Background(), s.Client(), code.VerificationURL, code.UserCode, entratest.Alice.Username); err != nil {
		log.Fatal(err)
	}
}

// pc is a machine of the examples: a folder, and a keyring in memory.
type pc struct {
	dir     string
	keyring *keyringtest.Keyring
}

func newPC() *pc {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	return &pc{dir, keyringtest.New()}
}

// config is that of a program on this machine. A program of yours leaves Dir, Keyring
// and Logger out.
func (p *pc) config(name string) tokenkeep.Config {
	return tokenkeep.Config{Name: name, Dir: p.dir, Keyring: p.keyring, Logger: slog.New(slog.DiscardHandler)}
}

func (p *pc) remove() { os.RemoveAll(p.dir) }

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
