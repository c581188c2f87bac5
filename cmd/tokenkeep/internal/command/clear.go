package command

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/keyrings"
	"github.com/tokenkeep/tokenkeep/internal/place"
	"github.com/tokenkeep/tokenkeep/internal/removal"
)

var clearCommand = &command{
	name: "clear", args: "NAME", min: 1, max: 1, short: "remove what is stored; the user signs in again",
	long: "Removes what is stored under the name, encrypted or not, with its keys, the files that were set aside, and temporary files that a killed program left. " +
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
	at, err := place.Of(f.dir, f.name)
	if err != nil {
		return nil, err
	}
	all := &removal.Removal{Cache: f.layout(), Place: at, Lock: f.lock, Keys: f.oldSources}
	files, err := all.Files(ctx)
	switch {
	case err != nil:
		return nil, err
	case len(files) > 0:
		err = c.confirm(ctx, fmt.Sprintf("This removes %s and its keys. All its users have to sign in again. Go on?", strings.Join(files, ", ")))
	case len(all.Orphans()) == 0:
		err = c.nothingStored(f)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	done, err := all.Do(ctx)
	if err != nil {
		return nil, err
	}
	return &cleared{Name: f.name, Removed: append([]string{}, done.Files...), leftKeys: leftKeys{done.LeftKeys}}, nil
}

// storedKeys returns the keys of a cache in each keyring.
func (c *call) storedKeys(name string) []encrypted.KeyDeleter {
	all := []encrypted.KeyDeleter{keyrings.Keys(c.Keyring, name)}
	if c.Kernel != nil {
		all = append(all, keyrings.Keys(keyrings.AsKernel(c.Kernel), name))
	}
	return all
}

func (r *cleared) write(p *printer) {
	if len(r.Removed) > 0 {
		p.line("Removed what was stored under the name %s:", r.Name)
	} else if len(r.LeftKeys) == 0 {
		p.line("Nothing was stored under the name %s but a key, which was deleted.", r.Name)
	} else {
		p.line("Nothing is stored under the name %s but a key, which could not be deleted.", r.Name)
	}
	for _, path := range r.Removed {
		p.line("  %s", path)
	}
	r.leftKeys.write(p, r.Name)
}
