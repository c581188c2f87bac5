// Watch is a desktop app that shows who is signed in, and learns when that changes
// elsewhere: here, in a command-line program that shares its sign-in.
//
//	go run ./examples/watch
//
// It starts itself as that other program, to sign in and then to sign out.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/internal/test/demo"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func main() {
	run := desktop
	if len(os.Args) > 1 {
		run = other
	}
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(ctx context.Context) (*persistence.Cache, error) {
	return tokenkeep.Open(ctx, tokenkeep.Config{
		Name:           "contoso-example-watch",
		Store:          os.Getenv("CONTOSO_STORE"),
		AllowPlaintext: os.Getenv("CONTOSO_STORE") == "plaintext",
	})
}

// desktop is the app with a window; here it prints to the terminal.
func desktop(ctx context.Context) error {
	authority, err := demo.Start("watch")
	if err != nil {
		return err
	}
	defer authority.Close()
	tokens, err := open(ctx)
	if err != nil {
		return err
	}
	elsewhere := func(command string) error {
		cmd, err := authority.Command(ctx, command)
		if err != nil {
			return err
		}
		return cmd.Run()
	}
	if err := elsewhere("logout"); err != nil { // should an earlier run have been ended before it was
		return err
	}
	ctx, closeWindow := context.WithCancel(ctx)
	defer closeWindow()
	changes := tokens.Watch(ctx, 0)
	for _, command := range []string{"login", "logout"} {
		if err := elsewhere(command); err != nil {
			return err
		}
		for change := range changes { // a real app has a goroutine for it
			for _, account := range change.Added {
				fmt.Printf("%s has signed in elsewhere.\n", account.Username)
			}
			for _, account := range change.Removed {
				fmt.Printf("%s has signed out elsewhere.\n", account.Username)
			}
			if len(change.Added)+len(change.Removed) > 0 {
				show(change.Accounts)
				break
			}
		}
	}
	return nil
}

// show stands for the corner of the window that shows the user's name.
func show(accounts []persistence.Account) {
	names := []string{}
	for _, account := range accounts {
		names = append(names, account.Username)
	}
	fmt.Printf("Signed in: [%s]\n", strings.Join(names, ", "))
}

// other is the command-line program.
func other(ctx context.Context) error {
	authority, err := demo.Start("watch")
	if err != nil {
		return err
	}
	tokens, err := open(ctx)
	if err != nil {
		return err
	}
	client, err := public.New(demo.ClientID, public.WithAuthority(authority.URL), public.WithHTTPClient(authority.Client), public.WithCache(tokens))
	if err != nil {
		return err
	}
	if os.Args[1] == "logout" {
		accounts, err := client.Accounts(ctx)
		for _, account := range accounts {
			if err := client.RemoveAccount(ctx, account); err != nil {
				return err
			}
		}
		return err
	}
	code, err := client.AcquireTokenByDeviceCode(ctx, []string{"User.Read"})
	if err != nil {
		return err
	}
	if err := authority.Show(ctx, code); err != nil {
		return err
	}
	_, err = code.AuthenticationResult(ctx)
	return err
}
