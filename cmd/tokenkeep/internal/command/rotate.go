package command

import (
	"context"
	"flag"
)

var rotateCommand = &command{
	name: "rotate", args: "NAME", min: 1, max: 1, short: "give the encrypted file a new key",
	long: "Gives an encrypted file a new key, kept in the same place as the old one, and encrypts it again. The old key is kept until the next rotation, " +
		"so that a copy of the file made before still opens. Running programs go on without a new sign-in. A file with a passphrase keeps its passphrase; to change that, see tokenkeep help passphrase.",
	examples: []string{"tokenkeep rotate contoso-cli"},
	flags:    func(set *flag.FlagSet, o *options) { dirFlag(set, o); passphraseFlag(set, o) },
	run:      runRotate,
}

func runRotate(ctx context.Context, c *call) (report, error) {
	f, err := c.encryptedCache(c.args[0])
	if err != nil {
		return nil, err
	}
	from, err := c.open(ctx, f)
	if err != nil {
		return nil, err
	}
	to, err := c.keySource(ctx, from.store, f.name, true)
	if err != nil {
		return nil, err
	}
	return c.rekey(ctx, f, from, to, from.store, "the key is a new one")
}
