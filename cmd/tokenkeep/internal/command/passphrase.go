package command

import (
	"context"
	"flag"
)

var passphraseCommand = &command{
	name: "passphrase", args: "NAME", min: 1, max: 1, short: "change the passphrase of a cache",
	long: "Changes the passphrase of a cache that is kept with one. It asks for the old one, and twice for the new one; neither is shown. " +
		"A script passes them in environment variables. A copy of the file made before still opens with the old passphrase.",
	examples: []string{"tokenkeep passphrase contoso-cli", "tokenkeep passphrase contoso-cli -passphrase-env OLD -new-passphrase-env NEW"},
	flags: func(set *flag.FlagSet, o *options) {
		dirFlag(set, o)
		passphraseFlag(set, o)
		newPassphraseFlag(set, o)
	},
	run: runPassphrase,
}

func runPassphrase(ctx context.Context, c *call) (report, error) {
	f, err := c.encryptedCache(c.args[0])
	if err != nil {
		return nil, err
	}
	if k := f.storage(ctx); k.err == nil && k.KeySource != storePassphrase {
		return nil, &refusal{f.name + " has no passphrase: it is kept " + k.String(), "Give it one: " + c.inFolder("tokenkeep move "+f.name+" -to passphrase"), nil}
	}
	// The old one is proved before anybody thinks of a new one.
	from, err := c.open(ctx, f)
	if err != nil {
		return nil, err
	}
	to, err := c.keySource(ctx, storePassphrase, f.name, false)
	if err != nil {
		return nil, err
	}
	return c.rekey(ctx, f, from, to, storePassphrase, "the passphrase is changed")
}
