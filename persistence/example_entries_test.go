package persistence_test

import (
	"context"
	"errors"
	"fmt"

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
