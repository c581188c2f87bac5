package command

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var moveCommand = &command{
	name: "move", args: "NAME", min: 1, max: 1, short: "keep a cache in another store or another folder",
	long: "Moves what is stored to another store (-to keyring, kernel, dpapi, passphrase or plaintext), to another folder (-to-dir), or both. " +
		"It is copied, read back and compared before anything is removed. The program that uses the cache must be set to the new folder, or allow the new store. " +
		"A program that permits plaintext moves it to something safer where it can, unless it is set to the store plaintext. Before a move to plaintext it asks.",
	examples: []string{"tokenkeep move contoso-cli -to keyring", "tokenkeep move contoso-cli -to passphrase", "tokenkeep move contoso-cli -to-dir /srv/app/tokens"},
	flags: func(set *flag.FlagSet, o *options) {
		dirFlag(set, o)
		set.StringVar(&o.to, "to", "", "the `store`: keyring, kernel, dpapi, passphrase or plaintext")
		set.StringVar(&o.toDir, "to-dir", "", "the `folder`")
		passphraseFlag(set, o)
		newPassphraseFlag(set, o)
		yesFlag(set, o)
	},
	run: runMove,
}

func runMove(ctx context.Context, c *call) (report, error) {
	if c.to == "" && c.toDir == "" {
		return nil, &misuse{"move needs -to or -to-dir", "See: tokenkeep help move"}
	}
	if err := checkStore(c.to); err != nil {
		return nil, err
	}
	f, err := c.storedCache(c.args[0])
	if err != nil {
		return nil, err
	}
	from, err := c.open(ctx, f)
	if err != nil {
		return nil, err
	}
	store, to, target := from.store, c.to, f
	if to == "" {
		to = store
	}
	if c.toDir != "" {
		dir, err := filepath.Abs(c.toDir)
		if err != nil {
			return nil, err
		}
		target = newFiles(f.name, dir)
	}
	sameDir := target.dir == f.dir
	switch {
	case sameDir && to == store && !(f.encrypted && f.plaintext):
		return nil, &refusal{fmt.Sprintf("%s is there already: it is kept %s", f.name, f.storage(ctx)), "", nil}
	case to == storePlaintext && store != storePlaintext:
		if err := c.confirm(ctx, "The tokens will be unencrypted in "+target.plaintextPath()+", and anybody who can read that file can sign in as you. Go on?"); err != nil {
			return nil, err
		}
	}
	if sameDir {
		err = c.moveStore(ctx, f, from, to)
	} else {
		err = c.moveFolder(ctx, f, from, to, target)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return &changed{Name: f.name, storage: target.storageIn(ctx, to), leftKeys: c.keysLeft(ctx, from.file), done: "moved"}, nil
}

// moveStore moves to another store in the same folder, or what is stored in plaintext
// beside the encrypted file into that.
func (c *call) moveStore(ctx context.Context, f *files, from *opened, to string) error {
	switch {
	case to == storePlaintext:
		// The encrypted file goes last. If this is killed in between, a program finds
		// both, merges them and loses nothing.
		p, err := f.openPlaintext()
		if err != nil {
			return err
		}
		ctx, cancel := c.bounded(ctx)
		defer cancel()
		return persistence.Move(ctx, from.Versioned, p)
	case f.encrypted && to != from.store:
		keys, err := c.keySource(ctx, to, f.name, false)
		if err != nil {
			return err
		}
		ctx, cancel := c.bounded(ctx)
		defer cancel()
		return from.file.Rotate(ctx, keys)
	}
	return c.asProgram(ctx, f, to, tokenkeep.MovePlaintext)
}

// moveFolder moves to a folder where nothing is stored under that name.
func (c *call) moveFolder(ctx context.Context, f *files, from *opened, to string, target *files) error {
	there, err := scan(target.dir)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(there, func(other *files) bool { return other.name == f.name && other.stored() }) {
		return &refusal{fmt.Sprintf("something is stored under the name %s in %s already", f.name, target.dir), "Clear it first, or name another folder.", persistence.ErrConflict}
	}
	var p persistence.Persistence
	if to == storePlaintext {
		if p, err = target.openPlaintext(); err != nil {
			return err
		}
	} else {
		keys, err := c.keySource(ctx, to, f.name, to == storePassphrase && f.storage(ctx).KeySource == storePassphrase)
		if err != nil {
			return err
		}
		if p, err = target.openEncrypted(target.encryptedPath(), keys); err != nil {
			return err
		}
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return persistence.Move(ctx, from.Versioned, p)
}
