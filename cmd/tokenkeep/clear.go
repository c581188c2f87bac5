package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var clearCommand = &command{
	name: "clear", args: "NAME", min: 1, max: 1, short: "remove what is stored; the user signs in again",
	long: "Removes what is stored under the name, encrypted or not, with its keys, with the files that were set aside, and with what a killed save left. " +
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
	paths := f.removable()
	if len(paths) == 0 {
		_, err := c.storedCache(f.name)
		return nil, err
	}
	if err := c.confirm(ctx, fmt.Sprintf("This removes %s and its keys; whoever was signed in has to sign in again. Go on?", strings.Join(paths, ", "))); err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	unlock, err := f.lock.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// What a program has done since.
	now, err := c.cache(f.name)
	if err != nil {
		return nil, err
	}
	now.lock = f.lock
	r := &cleared{f.name, now.removable()}
	for _, path := range r.Removed {
		if err := c.remove(ctx, now, path); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// removable are the paths of all that clear removes. The plaintext comes first:
// as long as an encrypted file is there, no program begins a new one.
func (f *files) removable() (paths []string) {
	if f.plaintext {
		paths = append(paths, f.plaintextPath())
	}
	if f.encrypted {
		paths = append(paths, f.encryptedPath())
	}
	for _, n := range f.aside {
		paths = append(paths, filepath.Join(f.dir, n))
	}
	for _, n := range f.temporary {
		if path := filepath.Join(f.dir, n); abandoned(path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// remove removes the file, and its keys also where they cannot be had.
func (c *call) remove(ctx context.Context, f *files, path string) error {
	switch file := layout.Parse(filepath.Base(path)); {
	case file.Kind == layout.PlaintextFile:
		p, err := f.openPlaintext()
		if err != nil {
			return err
		}
		return p.Delete(ctx)
	case file.Kind == layout.Temporary || file.OfPlaintext:
		return securefile.Remove(path)
	}
	keys := encrypted.DPAPI() // any source will do that stores no keys
	source, err := encrypted.StoredSource(path)
	switch {
	case err == nil:
		for _, stored := range c.storedKeys(f.name) {
			if stored.Source() == source {
				keys = stored
			}
		}
	case !keyLost(err) && !errors.Is(err, persistence.ErrUnsupportedVersion):
		return err
	}
	p, err := f.openEncrypted(path, keys)
	if err != nil {
		return err
	}
	return p.Delete(ctx)
}

// storedKeys returns the keys of a cache in each keyring.
func (c *call) storedKeys(name string) []encrypted.KeyDeleter {
	all := []encrypted.KeyDeleter{keyring.NewKeys(c.keyring, layout.KeyringService(name))}
	if c.kernel != nil {
		all = append(all, c.kernelKeys(name))
	}
	return all
}

func (r *cleared) write(p *printer) {
	p.line("Removed what was stored under the name %s:", r.Name)
	for _, path := range r.Removed {
		p.line("  %s", path)
	}
}
