package main

import (
	"context"
	"flag"

	"github.com/tokenkeep/tokenkeep/encrypted"
)

var rotateCommand = &command{
	name: "rotate", args: "NAME", min: 1, max: 1, short: "give the encrypted file a new key",
	long: "Gives an encrypted file a new key from where it has its key now, and encrypts it anew. The old key is kept until the next rotation, " +
		"so that a copy made before still opens. Programs that are running go on. A file with a passphrase keeps its passphrase; to change it, see tokenkeep help passphrase.",
	examples: []string{"tokenkeep rotate contoso-cli"},
	flags:    func(set *flag.FlagSet, o *options) { dirFlag(set, o); passphraseFlag(set, o) },
	run:      runRotate,
}

// changed is the report of what changes how a cache is kept.
type changed struct {
	Name string `json:"name"`
	kept
	done string
}

func (r *changed) write(p *printer) { p.line("%s: %s; it is kept %s.", r.Name, r.done, r.kept) }

func (c *call) encryptedCache(name string) (*files, error) {
	f, err := c.storedCache(name)
	if err == nil && !f.encrypted {
		err = &refusal{"the tokens of " + name + " are not encrypted, so they have no key", "Encrypt them: tokenkeep move " + name + " -to keyring", nil}
	}
	return f, err
}

func runRotate(ctx context.Context, c *call) (report, error) {
	f, err := c.encryptedCache(c.args[0])
	if err != nil {
		return nil, err
	}
	p, _, store, err := c.open(ctx, f)
	if err != nil {
		return nil, err
	}
	to, err := c.keySource(ctx, store, f.name, true)
	if err != nil {
		return nil, err
	}
	return c.rekey(ctx, f, p, to, store, "the key is a new one")
}

// rekey gives an encrypted file a key of another source or a new one of its own.
func (c *call) rekey(ctx context.Context, f *files, p backend, to encrypted.KeySource, store, done string) (report, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if err := p.(*encrypted.File).Rotate(ctx, to); err != nil {
		return nil, err
	}
	return &changed{f.name, f.keptIn(store), done}, nil
}

// keptIn is kept, with the store known that the header does not tell.
func (f *files) keptIn(store string) kept {
	again := *f
	again.encrypted, again.plaintext = store != storePlaintext, store == storePlaintext
	k := again.kept()
	if k.Backend == "encrypted" && k.err == nil {
		k.KeySource = store
	}
	return k
}
