package command

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/keyring"
)

var clearCommand = &command{
	name: "clear", args: "NAME", min: 1, max: 1, short: "remove what is stored; the user signs in again",
	long: "Removes what is stored under the name, encrypted or not, with its keys, the files that were set aside, and what a killed save left. " +
		"It asks first. It does not sign out at the provider: tokens in the memory of a running program stay valid until they expire.",
	examples: []string{"tokenkeep clear contoso-cli", "tokenkeep clear contoso-cli -yes"},
	flags:    func(set *flag.FlagSet, o *options) { dirFlag(set, o); yesFlag(set, o) },
	run:      runClear,
}

type cleared struct {
	Name    string   `json:"name"`
	Removed []string `json:"removed"`
	leftKeys
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
	if err := c.confirm(ctx, fmt.Sprintf("This removes %s and its keys. All its users have to sign in again. Go on?", strings.Join(paths, ", "))); err != nil {
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
	r := &cleared{Name: f.name, Removed: now.removable()}
	var had []*encrypted.File
	for _, path := range r.Removed {
		file, err := c.remove(ctx, now, path)
		if err != nil {
			return nil, err
		}
		had = append(had, file)
	}
	// Keys of former stores are noted for the encrypted file, also where there is
	// none any more.
	if !slices.Contains(r.Removed, f.encryptedPath()) {
		file, err := c.removeEncrypted(ctx, now, f.encryptedPath())
		if err != nil {
			return nil, err
		}
		had = append(had, file)
	}
	r.leftKeys = c.keysLeft(ctx, had...)
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

// remove removes the file at path, and its keys as far as they can be had. It
// returns what it was, if it was encrypted.
func (c *call) remove(ctx context.Context, f *files, path string) (*encrypted.File, error) {
	switch file := layout.Parse(filepath.Base(path)); {
	case file.Kind == layout.PlaintextFile:
		p, err := f.openPlaintext()
		if err != nil {
			return nil, err
		}
		return nil, p.Delete(ctx)
	case file.Kind == layout.Temporary || file.OfPlaintext:
		return nil, securefile.Remove(ctx, path)
	}
	return c.removeEncrypted(ctx, f, path)
}

// removeEncrypted removes an encrypted file that need not exist or be readable.
// Its keys are deleted from the keyrings by their names alone.
func (c *call) removeEncrypted(ctx context.Context, f *files, path string) (*encrypted.File, error) {
	file, err := f.openEncrypted(path, encrypted.DPAPI()) // any source will do: those that store keys are the file's old ones
	if err != nil {
		return nil, err
	}
	return file, file.Delete(ctx)
}

// storedKeys returns the keys of a cache in each keyring.
func (c *call) storedKeys(name string) []encrypted.KeyDeleter {
	all := []encrypted.KeyDeleter{keyring.NewKeys(c.Keyring, layout.KeyringService(name))}
	if c.Kernel != nil {
		all = append(all, c.kernelKeys(name))
	}
	return all
}

func (r *cleared) write(p *printer) {
	p.line("Removed what was stored under the name %s:", r.Name)
	for _, path := range r.Removed {
		p.line("  %s", path)
	}
	r.leftKeys.write(p, r.Name)
}
