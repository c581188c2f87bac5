package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var clearCommand = &command{
	name: "clear", args: "NAME", min: 1, max: 1, short: "remove what is stored; the user signs in again",
	long: "Removes what is stored under the name, encrypted or not, with its keys and with the files that were set aside. " +
		"It asks first. Tokens that are in the memory of a running program stay valid until they expire: this does not sign out at the authority.",
	examples: []string{"tokenkeep clear contoso-cli", "tokenkeep clear contoso-cli -yes"},
	flags:    func(set *flag.FlagSet, o *options) { dirFlag(set, o); yesFlag(set, o) },
	run:      runClear,
}

type cleared struct {
	Name    string   `json:"name"`
	Removed []string `json:"removed"`
}

func runClear(ctx context.Context, c *call) (report, error) {
	f, err := c.cache(c.args[0])
	if err != nil {
		return nil, err
	}
	var paths []string
	if f.encrypted {
		paths = append(paths, f.encryptedPath())
	}
	if f.plaintext {
		paths = append(paths, f.plaintextPath())
	}
	for _, name := range f.aside {
		paths = append(paths, filepath.Join(f.dir, name))
	}
	if len(paths) == 0 {
		_, err := c.storedCache(f.name)
		return nil, err
	}
	if err := c.confirm(ctx, fmt.Sprintf("This removes %s and its keys; whoever was signed in has to sign in again. Go on?", strings.Join(paths, ", "))); err != nil {
		return nil, err
	}
	// The plaintext first: as long as an encrypted file is there, no program
	// begins a new one.
	if f.plaintext {
		p, err := f.openPlaintext()
		if err == nil {
			err = p.Delete(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	if f.encrypted {
		if err := c.deleteEncrypted(ctx, f); err != nil {
			return nil, err
		}
	}
	for _, name := range f.aside {
		if err := securefile.Remove(filepath.Join(f.dir, name)); err != nil {
			return nil, err
		}
	}
	return &cleared{f.name, paths}, nil
}

// deleteEncrypted removes the file also where its key cannot be had.
func (c *call) deleteEncrypted(ctx context.Context, f *files) error {
	remove := func(keys encrypted.KeySource) error {
		p, err := f.openEncrypted(f.encryptedPath(), keys)
		if err != nil {
			return err
		}
		return p.Delete(ctx)
	}
	source, err := encrypted.StoredSource(f.encryptedPath())
	switch {
	case err == nil && source == storeKeyring:
		// The header does not say in which keyring.
		k := c.keyring
		if c.kernel != nil {
			k = eitherKeyring{c.kernel, k}
		}
		return remove(keyring.NewKeySource(k, "tokenkeep/"+f.name))
	case err == nil, keyLost(err), errors.Is(err, persistence.ErrUnsupportedVersion):
		return remove(encrypted.DPAPI()) // any source will do that stores no keys
	}
	return err
}

// eitherKeyring deletes an item from the kernel's keyring or, if it is not
// there, from the operating system's.
type eitherKeyring struct {
	kernel keyring.Keyring
	keyring.Keyring
}

// Delete implements keyring.Keyring.
func (k eitherKeyring) Delete(ctx context.Context, service, user string) error {
	if k.kernel.Delete(ctx, service, user) == nil {
		return nil // an id is random: the other one has not got it, too
	}
	return k.Keyring.Delete(ctx, service, user)
}

func (r *cleared) write(p *printer) {
	p.line("Removed what was stored under the name %s:", r.Name)
	for _, path := range r.Removed {
		p.line("  %s", path)
	}
}
