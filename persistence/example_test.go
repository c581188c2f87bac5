package persistence_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// A program keeps a client secret beside its tokens.
func ExampleCache_Entries() {
	ctx := context.Background()
	cache, err := persistence.New(persistence.NewMemory()) // or tokenkeep.Open
	if err != nil {
		panic(err)
	}
	secrets, err := cache.Entries("contoso-cli")
	if err != nil {
		panic(err)
	}
	_, err = secrets.Get(ctx, "client secret")
	fmt.Println("there is one:", !errors.Is(err, persistence.ErrNotFound))
	if err := secrets.Set(ctx, "client secret", []byte("xyzzy")); err != nil {
		panic(err)
	}
	secret, err := secrets.Get(ctx, "client secret")
	fmt.Println(string(secret), err)
	keys, err := secrets.Keys(ctx)
	fmt.Println(keys, err)
	// Output:
	// there is one: false
	// xyzzy <nil>
	// [client secret] <nil>
}

// A program that has kept a token in a file of its own takes it over. The function
// would be called at each start; after the first it finds nothing.
func ExampleEntries_Adopt() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	old := filepath.Join(dir, "token.json")
	if err := os.WriteFile(old, []byte("xyzzy"), 0o644); err != nil {
		panic(err)
	}

	cache, err := persistence.New(persistence.NewMemory()) // or tokenkeep.Open
	if err != nil {
		panic(err)
	}
	secrets, err := cache.Entries("contoso-cli")
	if err != nil {
		panic(err)
	}
	for range 2 {
		stored, err := secrets.Adopt(ctx, "token",
			func(context.Context) ([]byte, error) { return os.ReadFile(old) },
			func(context.Context) error { return os.Remove(old) })
		fmt.Println(stored, err)
	}
	token, err := secrets.Get(ctx, "token")
	fmt.Println(string(token), err)
	_, err = os.Stat(old)
	fmt.Println("the file is gone:", errors.Is(err, fs.ErrNotExist))
	// Output:
	// true <nil>
	// false <nil>
	// xyzzy <nil>
	// the file is gone: true
}

// A program moves its user's sign-in to another backend.
func ExampleMove() {
	ctx := context.Background()
	from, to := persistence.NewMemory(), persistence.NewMemory() // for example of a Cache's Backend
	if err := from.Save(ctx, []byte(`{"RefreshToken":{"k":{"secret":"xyzzy"}}}`)); err != nil {
		panic(err)
	}
	fmt.Println(persistence.Move(ctx, from, to))
	_, err := from.Load(ctx)
	fmt.Println("the old place is empty:", errors.Is(err, persistence.ErrNotFound))
	_, err = to.Load(ctx)
	fmt.Println(err)
	// Output:
	// <nil>
	// the old place is empty: true
	// <nil>
}

// A program with a window shows why something failed and what helps, each in a place of
// its own. A terminal program prints the error, which says all of it.
func ExampleRemedy() {
	err := error(&persistence.Error{Op: "load", Backend: "encrypted", Location: "app.enc",
		Err: persistence.ErrKeyringLocked, Remedy: "Unlock the keyring and try again."})
	err = fmt.Errorf("signing in: %w", err)
	fmt.Println("why: ", persistence.Cause(err))
	fmt.Println("help:", persistence.Remedy(err))
	fmt.Println("all: ", err)
	// Output:
	// why:  the keyring is locked
	// help: Unlock the keyring and try again.
	// all:  signing in: tokenkeep: load encrypted app.enc: the keyring is locked. Unlock the keyring and try again.
}
