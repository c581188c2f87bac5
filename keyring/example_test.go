package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() {
	keyring.SetDirKeyring(func(dir string) keyring.Keyring { return keyringtest.NewDir(dir) })
}

// A token cache in the keyring, shared by all processes of the user.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	k := keyringtest.New() // in a program: keyring.System()
	p, err := keyring.New(k, "contoso-cli", "tokens",
		persistence.NewFileLock(filepath.Join(dir, "contoso-cli.lock")))
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := persistence.New(p)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = c.Update(context.Background(), func([]byte) ([]byte, error) { return []byte(`{"AccessToken":{}}`), nil })
	if err != nil {
		fmt.Println(err)
		return
	}
	data, err := c.Load(context.Background())
	fmt.Println(string(data), err)
	// Output: {"AccessToken":{}} <nil>
}

// What a program does next depends on why the keyring failed.
func ExampleSystem() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := keyring.System().Get(ctx, "contoso-cli", "tokens")
	switch {
	case err == nil, errors.Is(err, persistence.ErrNotFound):
		// The keyring works.
	case errors.Is(err, persistence.ErrKeyringLocked):
		// Ask the user to unlock it: keyring.System(keyring.WithPrompt()).
	case errors.Is(err, persistence.ErrUnavailable):
		// There is none here: take another place for the tokens.
	}
}

// The key of an encrypted file, in the keyring.
func ExampleNewKeys() {
	keys := keyring.NewKeys(keyringtest.New(), "contoso-cli")
	ref, key, err := keys.NewKey(context.Background(), "6fXyJ2pX")
	fmt.Println(ref, len(key), err)
	_, err = keys.Key(context.Background(), "another")
	fmt.Println(errors.Is(err, persistence.ErrKeyMissing))
	// Output:
	// 6fXyJ2pX 32 <nil>
	// true
}
