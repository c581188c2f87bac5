package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var moveCommand = &command{
	name: "move", args: "NAME", min: 1, max: 1, short: "keep a cache elsewhere: in another store, in another folder",
	long: "Moves what is stored to another store (-to keyring, kernel, dpapi, passphrase or plaintext), to another folder (-to-dir), or both. " +
		"It is copied, read back and compared before anything is removed. The program that uses the cache must look for it there: " +
		"a program that finds plaintext and has something safer moves it back. Moving to plaintext asks first.",
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
	from, _, store, err := c.open(ctx, f)
	if err != nil {
		return nil, err
	}
	to, target := c.to, f
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
		return nil, &refusal{fmt.Sprintf("%s is there already: it is kept %s", f.name, f.kept()), "", nil}
	case to == storePlaintext && store != storePlaintext:
		if err := c.confirm(ctx, "Then the tokens lie unencrypted in "+target.plaintextPath()+", and whoever can read that file can sign in as you. Go on?"); err != nil {
			return nil, err
		}
	}
	switch {
	case !sameDir:
		err = c.moveFolder(ctx, f, from, to, target)
	case to == storePlaintext:
		err = c.moveToPlaintext(ctx, f, from, store)
	case f.encrypted && to != store:
		var keys encrypted.KeySource
		if keys, err = c.keySource(to, f.name, false); err == nil {
			err = from.(*encrypted.File).Rotate(ctx, keys)
		}
	default:
		// A program does the same by itself at its next start.
		_, err = c.openCache(ctx, f, to)
	}
	if err != nil {
		return nil, err
	}
	return &changed{f.name, target.keptIn(to), "moved"}, nil
}

// moveFolder moves to a folder where nothing is stored under that name.
func (c *call) moveFolder(ctx context.Context, f *files, from backend, to string, target *files) error {
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
		keys, err := c.keySource(to, f.name, to == storePassphrase && f.kept().KeySource == storePassphrase)
		if err != nil {
			return err
		}
		if p, err = target.openEncrypted(target.encryptedPath(), keys); err != nil {
			return err
		}
	}
	return persistence.Move(ctx, from, p)
}

// moveToPlaintext replaces the encrypted file by a plaintext one in the same
// folder. At no moment do both have their names: a program that saw both would
// take the plaintext for older, and remove it.
func (c *call) moveToPlaintext(ctx context.Context, f *files, from backend, store string) error {
	if f.plaintext {
		return &refusal{"unencrypted tokens lie there as well", "Let them be moved into the encrypted file first: tokenkeep move " + f.name + " -to " + store, persistence.ErrConflict}
	}
	to, err := f.openPlaintext()
	if err != nil {
		return err
	}
	unlock, err := f.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	data, rev, err := from.LoadRevision(ctx)
	if err != nil {
		return err
	}
	aside, err := from.SetAside(ctx, rev)
	if err != nil {
		return err
	}
	if err := to.Save(ctx, data); err != nil {
		return fmt.Errorf("%w; the encrypted file is %s now", err, aside)
	}
	if back, err := to.Load(ctx); err != nil || !bytes.Equal(back, data) {
		return &refusal{"what was copied does not read back the same; the encrypted file is " + aside + " now", "Check the disk.", persistence.ErrCorrupt}
	}
	keys, err := c.keySource(store, f.name, true)
	if err != nil {
		return err
	}
	old, err := f.openEncrypted(aside, keys)
	if err != nil {
		return err
	}
	return old.Delete(ctx) // with its keys
}
