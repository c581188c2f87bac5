package command

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/transfer"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var importCommand = &command{
	name: "import", args: "NAME [FILE]", min: 1, max: 2, short: "add what MSAL's JSON holds to a cache",
	long: "Adds the accounts and tokens of a file, or of standard input, to a cache, which is created if it does not exist. The file is " +
		"what export -secrets wrote, or the plaintext cache of an MSAL library. What is stored already stays; of two tokens for one purpose the newer one is kept. What MSAL cannot read is left out, and named. " +
		"The file stays as it is; remove it afterwards. With -other instead of FILE it adds the tokens of another program's cache, and does not change that cache. Only a program with the same client id can use these tokens.",
	examples: []string{"tokenkeep import contoso-cli contoso.json", "tokenkeep import contoso-cli -to passphrase < contoso.json", "tokenkeep import contoso-cli -other az"},
	flags: func(set *flag.FlagSet, o *options) {
		dirFlag(set, o)
		set.StringVar(&o.to, "to", "", "the `store` of a new cache: keyring, kernel, dpapi, passphrase or plaintext (default: the safest that works)")
		passphraseFlag(set, o)
		newPassphraseFlag(set, o)
		otherFlag(set, o, "add what this cache of another program holds")
	},
	run: runImport,
}

type imported struct {
	changed
	Accounts int      `json:"accounts"`          // that the cache has now
	LeftOut  int      `json:"leftOut,omitempty"` // bytes after the JSON
	Refused  []string `json:"refused,omitempty"` // sections, and entries with their section, that MSAL cannot read
}

// maxImport is the size of the largest cache that there can be, in bytes.
const maxImport = encrypted.DefaultMaxSize

func runImport(ctx context.Context, c *call) (report, error) {
	if err := checkStore(c.to); err != nil {
		return nil, err
	}
	f, err := c.cache(c.args[0])
	if err != nil {
		return nil, err
	}
	data, err := c.input(ctx)
	if err != nil {
		return nil, err
	}
	data, left := object(data)
	if _, err := parseCache(data); err != nil || !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return nil, &refusal{"what is to be imported is not a token cache of an MSAL library", "Give it the JSON that export -secrets or an MSAL library wrote.", nil}
	}
	if isRedacted(data) {
		return nil, &refusal{"what is to be imported has no secrets: it was exported without them", "Export it with -secrets.", nil}
	}
	store := c.to
	if f.stored() {
		from, err := c.open(ctx, f)
		if err != nil {
			return nil, err
		}
		store = from.store
		if c.to != "" && c.to != store {
			return nil, &refusal{fmt.Sprintf("%s is there already, kept %s", f.name, f.storage(ctx)), "Leave out -to; tokenkeep move changes where it is kept.", nil}
		}
	}
	cache, err := c.openCache(ctx, f, store)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	var sum *contents
	var refused []tokencache.Refused
	err = cache.Update(ctx, func(current []byte) ([]byte, error) {
		merged, _, left, err := transfer.Merge(nil, data, current)
		refused = left
		if err == nil {
			sum, err = summarize(merged, time.Now())
		}
		return merged, err
	})
	if err != nil {
		return nil, err
	}
	d := cache.Describe()
	k := storage{Backend: d.Backend, KeySource: d.KeySource, Location: d.Location}
	r := &imported{changed: changed{Name: f.name, storage: k, done: "imported"}, Accounts: len(sum.Accounts), LeftOut: left}
	for _, entry := range refused {
		r.Refused = append(r.Refused, entry.String())
	}
	return r, nil
}

// input returns the content of the file that was named, or of standard input.
func (c *call) input(ctx context.Context) ([]byte, error) {
	if c.other != "" {
		if len(c.args) == 2 {
			return nil, &misuse{"import takes FILE or -other", "See: tokenkeep help import"}
		}
		other, err := c.theOther()
		if err != nil {
			return nil, err
		}
		return other.view(ctx)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(c.Stdin), nil }
	if len(c.args) == 2 && c.args[1] != "-" {
		open = func() (io.ReadCloser, error) { return os.Open(c.args[1]) }
	} else if isTerminal(c.Stdin) {
		return nil, &misuse{"import needs a file, or its content on standard input", "See: tokenkeep help import"}
	}
	// A pipe may have no writer, or one that writes nothing for long.
	data, err := within.Call(ctx, func() ([]byte, error) {
		from, err := open()
		if err != nil {
			return nil, err
		}
		defer from.Close()
		return io.ReadAll(io.LimitReader(from, maxImport+1))
	})
	switch {
	case ctx.Err() != nil:
		return nil, errInterrupted(ctx)
	case err != nil:
		what := "standard input"
		if len(c.args) == 2 && c.args[1] != "-" {
			what = c.args[1]
		}
		return nil, &refusal{fmt.Sprintf("%s cannot be read: %v", what, pathless(err)), "", err}
	case len(data) > maxImport:
		return nil, &refusal{"what is to be imported is larger than any cache", "", persistence.ErrTooLarge}
	}
	return data, nil
}

// object returns the JSON object in what an MSAL library has stored, and how many
// bytes it leaves out. Before the object there may be a byte order mark; after it the
// end of an older, longer file, or zeros from a crash.
func object(data []byte) (object []byte, left int) {
	object = bytes.TrimPrefix(data, []byte("\ufeff"))
	d := json.NewDecoder(bytes.NewReader(object))
	var whole json.RawMessage
	if d.Decode(&whole) != nil {
		return object, 0
	}
	rest := bytes.Trim(object[d.InputOffset():], "\x00 \t\r\n")
	return object[:d.InputOffset()], len(rest)
}

func (r *imported) write(p *printer) {
	r.changed.write(p)
	p.line("It has %s.", count(r.Accounts, "account"))
	if r.LeftOut > 0 {
		p.line("Left out: %s after the end of the JSON.", count(r.LeftOut, "byte"))
	}
	for _, entry := range r.Refused {
		p.line("Left out, because MSAL cannot read it: %s.", entry)
	}
}
