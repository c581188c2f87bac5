package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var importCommand = &command{
	name: "import", args: "NAME [FILE]", min: 1, max: 2, short: "add what MSAL's JSON holds to a cache",
	long: "Adds the accounts and tokens of a file with MSAL's JSON, or of standard input, to a cache, which is made if it is not there: " +
		"what export -secrets wrote, or another library's plaintext cache. What is stored already stays; of two tokens for one purpose the newer one does. " +
		"The file is left as it is; remove it afterwards.",
	examples: []string{"tokenkeep import contoso-cli contoso.json", "tokenkeep import contoso-cli -to passphrase < contoso.json"},
	flags: func(set *flag.FlagSet, o *options) {
		dirFlag(set, o)
		set.StringVar(&o.to, "to", "", "where a new cache is kept: keyring, kernel, dpapi, passphrase or plaintext (default: the safest that works)")
		passphraseFlag(set, o)
		newPassphraseFlag(set, o)
	},
	run: runImport,
}

type imported struct {
	changed
	Accounts int `json:"accounts"` // that the cache has now
}

// maxImport is the largest cache that there may be.
const maxImport = encrypted.DefaultMaxSize

func runImport(ctx context.Context, c *call) (report, error) {
	if err := checkStore(c.to); err != nil {
		return nil, err
	}
	f, err := c.cache(c.args[0])
	if err != nil {
		return nil, err
	}
	data, err := c.input()
	if err != nil {
		return nil, err
	}
	if _, err := parseCache(data); err != nil || len(data) == 0 {
		return nil, &refusal{"what is to be imported is not a token cache of an MSAL library", "Give it the JSON that export -secrets or an MSAL library wrote.", nil}
	}
	if isRedacted(data) {
		return nil, &refusal{"what is to be imported has no secrets: it was exported without them", "Export it with -secrets.", nil}
	}
	store := c.to
	if f.stored() {
		if _, _, store, err = c.open(ctx, f); err != nil {
			return nil, err
		}
		if c.to != "" && c.to != store {
			return nil, &refusal{fmt.Sprintf("%s is there already, kept %s", f.name, f.kept()), "Leave out -to; tokenkeep move changes where it is kept.", nil}
		}
	}
	cache, err := c.openCache(ctx, f, store)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	var sum *contents
	err = cache.Update(ctx, func(current []byte) ([]byte, error) {
		merged, _, err := merge.Bytes(merge.BytesInput{BaseUnknown: true, Ours: data, Theirs: current, Now: time.Now()})
		if err == nil {
			sum, err = summarize(merged, time.Now())
		}
		return merged, err
	})
	if err != nil {
		return nil, err
	}
	d := cache.Describe()
	k := kept{Backend: d.Backend, KeySource: d.KeySource, Location: d.Location}
	return &imported{changed{f.name, k, "imported"}, len(sum.Accounts)}, nil
}

// input is the file that was named, or standard input.
func (c *call) input() ([]byte, error) {
	from := c.stdin
	if len(c.args) == 2 && c.args[1] != "-" {
		file, err := os.Open(c.args[1])
		if err != nil {
			return nil, &refusal{fmt.Sprintf("%s cannot be read: %v", c.args[1], pathless(err)), "", err}
		}
		defer file.Close()
		from = file
	} else if isTerminal(c.stdin) {
		return nil, &misuse{"import needs a file, or its content on standard input", "See: tokenkeep help import"}
	}
	data, err := io.ReadAll(io.LimitReader(from, maxImport+1))
	if err == nil && len(data) > maxImport {
		err = &refusal{"what is to be imported is larger than any cache", "", persistence.ErrTooLarge}
	}
	if errors.Is(err, os.ErrInvalid) {
		err = &refusal{"what is to be imported cannot be read", "Name a file.", nil}
	}
	return data, err
}

func (r *imported) write(p *printer) {
	r.changed.write(p)
	p.line("It has %s.", count(r.Accounts, "account"))
}
