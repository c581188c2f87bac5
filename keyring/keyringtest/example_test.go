package keyringtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// signIn is the program under test: it keeps what a sign-in returned, and reads
// it again as its next run would.
func signIn(k keyring.Keyring) error {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	for range 2 {
		c, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli", Dir: dir, Keyring: k, Store: "keyring"})
		if err != nil {
			return err
		}
		err = c.Update(ctx, func(now []byte) ([]byte, error) {
			return []byte(`{"AccessToken":{"large":` + strings.Repeat("0", 100_000) + `}}`), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// My user's keyring is locked.
func ExampleNewLocked() {
	err := signIn(keyringtest.NewLocked())
	fmt.Println(errors.Is(err, persistence.ErrKeyringLocked))
	// Output: true
}

// My user has no keyring.
func ExampleNewAbsent() {
	err := signIn(keyringtest.NewAbsent())
	fmt.Println(errors.Is(err, persistence.ErrUnavailable))
	// Output: true
}

// My user's keyring shows a dialog that nobody sees.
func ExampleNewHanging() {
	err := signIn(keyringtest.NewHanging(time.Millisecond))
	fmt.Println(errors.Is(err, persistence.ErrUnavailable), errors.Is(err, context.DeadlineExceeded))
	// Output: true true
}

// My user's keyring is killed after three calls: the first run has its key by
// then, and the second has not.
func ExampleNewVanishing() {
	err := signIn(keyringtest.NewVanishing(3))
	fmt.Println(errors.Is(err, persistence.ErrUnavailable))
	// Output: true
}

// My user's keyring is killed, and the new one is locked.
func ExampleNewRestarting() {
	k := keyringtest.NewRestarting(3)
	fmt.Println(errors.Is(signIn(k), persistence.ErrUnavailable))
	fmt.Println(errors.Is(signIn(k), persistence.ErrKeyringLocked))
	k.SetLocked(false)
	fmt.Println(signIn(k))
	// Output:
	// true
	// true
	// <nil>
}

// My user's keyring takes no more items.
func ExampleNewFull() {
	err := signIn(keyringtest.NewFull())
	fmt.Println(err != nil)
	// Output: true
}

// My user's keyring is Windows'.
func ExampleNewWindows() {
	fmt.Println(signIn(keyringtest.NewWindows()))
	err := keyringtest.NewWindows().Set(context.Background(), "contoso-cli", "tokens", strings.Repeat("x", 2561))
	fmt.Println(errors.Is(err, persistence.ErrTooLarge))
	// Output:
	// <nil>
	// true
}

// My user's keyring is macOS'.
func ExampleNewMacOS() {
	fmt.Println(signIn(keyringtest.NewMacOS()))
	err := keyringtest.NewMacOS().Set(context.Background(), "contoso-cli", "tokens", strings.Repeat("x", 3100))
	fmt.Println(errors.Is(err, persistence.ErrTooLarge))
	// Output:
	// <nil>
	// true
}

// My user's keyring is the Linux kernel's, and nobody has used it for three days.
func ExampleNewKernel() {
	k := keyringtest.NewKernel()
	fmt.Println(signIn(k))
	k.Clear()
	_, err := keyring.NewKeys(k, "contoso-cli").Key(context.Background(), "a-key-of-before")
	fmt.Println(errors.Is(err, persistence.ErrKeyMissing))
	// Output:
	// <nil>
	// true
}

func ExampleKeyring_SetLocked() {
	k := keyringtest.NewLocked()
	_, err := k.Get(context.Background(), "contoso-cli", "tokens")
	fmt.Println(errors.Is(err, persistence.ErrKeyringLocked))
	k.SetLocked(false)
	fmt.Println(k.Set(context.Background(), "contoso-cli", "tokens", "{}"), len(k.Calls()))
	// Output:
	// true
	// <nil> 2
}

// A keyring of which nothing is known but its error.
func ExampleNewFailing() {
	err := signIn(keyringtest.NewFailing(errors.New("the keyring daemon is out of order")))
	fmt.Println(strings.Contains(err.Error(), "the keyring daemon is out of order"))
	// Output: true
}
