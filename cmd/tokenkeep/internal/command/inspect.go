package command

import (
	"cmp"
	"context"
	"flag"
	"time"
)

var inspectCommand = &command{
	name: "inspect", args: "NAME", max: 1, short: "show who is signed in, which tokens there are, when they expire",
	long: "Shows what a cache holds: the accounts and tokens of MSAL, with the client and the scopes of each token and when it expires, " +
		"and the tokens of other providers, which package tokensource keeps. " +
		"It never shows a secret, not even a part of one. It changes nothing. With -other instead of NAME it shows the cache of another program.",
	examples: []string{"tokenkeep inspect contoso-cli", "tokenkeep inspect contoso-cli -json", "tokenkeep inspect contoso-cli -passphrase-env CONTOSO_PASSPHRASE", "tokenkeep inspect -other az"},
	flags: func(set *flag.FlagSet, o *options) {
		dirFlag(set, o)
		passphraseFlag(set, o)
		otherFlag(set, o, "show this cache of another program")
	},
	run: runInspect,
}

type inspection struct {
	Name string `json:"name"`
	storage
	Plaintext bool `json:"plaintextBeside"`
	*contents
	now time.Time
}

func runInspect(ctx context.Context, c *call) (report, error) {
	switch {
	case (c.other == "") == (len(c.args) == 0):
		return nil, &misuse{"inspect needs NAME or -other", "See: tokenkeep help inspect"}
	case c.other != "":
		return c.inspectOther(ctx)
	}
	f, err := c.storedCache(c.args[0])
	if err != nil {
		return nil, err
	}
	from, err := c.open(ctx, f)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	sum, err := summarize(from.data, now)
	if err != nil {
		return nil, err
	}
	i := &inspection{f.name, f.storage(ctx), f.encrypted && f.plaintext, sum, now}
	if f.encrypted {
		i.KeySource = from.store
	}
	return i, nil
}

func (i *inspection) write(p *printer) {
	p.line("%s: %s", p.in(bold, i.Name), i.storage)
	p.line("  in %s", i.Location)
	if i.Plaintext {
		p.line("  %s", p.in(red, "There are unencrypted tokens beside it; see tokenkeep doctor."))
	}
	i.writeContents(p)
}

func (i *inspection) writeContents(p *printer) {
	p.line("")
	if len(i.Accounts)+len(i.OAuth2) == 0 {
		p.line("Nobody is signed in.")
	}
	for _, a := range i.Accounts {
		name := a.Username
		if name == "" {
			name = a.HomeAccountID
		}
		p.line("%s (%s)", p.in(bold, name), a.Environment)
		if len(a.Tokens) == 0 {
			p.line("  no tokens")
		}
		i.tokens(p, a.Tokens)
	}
	for _, group := range []struct {
		title  string
		tokens []token
	}{{"Tokens of applications", i.Applications}, {"Tokens without their account", i.Orphans}} {
		if len(group.tokens) > 0 {
			p.line("%s", group.title)
			i.tokens(p, group.tokens)
		}
	}
	if len(i.OAuth2) > 0 {
		p.line("Tokens of other providers")
	}
	for _, t := range i.OAuth2 {
		p.line("  %s", t.line(i.now))
	}
	if i.Unknown > 0 {
		p.line("Besides: %s that this program does not know.", count(i.Unknown, "section"))
	}
}

func (i *inspection) tokens(p *printer, tokens []token) {
	for _, t := range tokens {
		p.line("  %s", t.line(i.now))
	}
}

// otherInspection is the inspection of another program's cache.
type otherInspection struct {
	*other
	Findings []finding `json:"findings"`
	*contents
	now time.Time
}

func (c *call) inspectOther(ctx context.Context) (report, error) {
	other, err := c.theOther()
	if err != nil {
		return nil, err
	}
	c.timeout = cmp.Or(c.timeout, 5*time.Second)
	var o checkResult
	(&doctorRun{call: c}).checkOther(ctx, other, &o)
	read := other.read
	if other.Encrypted {
		read = other.view
	}
	data, err := read(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	sum, err := summarize(data, now)
	if err != nil {
		return nil, err
	}
	return &otherInspection{other, append([]finding{}, o.Findings...), sum, now}, nil
}

func (i *otherInspection) write(p *printer) {
	p.line("%s: %s", p.in(bold, i.name()), i.other)
	p.line("  in %s", i.Location)
	for _, f := range i.Findings {
		p.wrapped("  "+p.mark(f.Status)+" ", f.What)
	}
	if len(i.Findings) > 0 {
		p.line("  See: tokenkeep doctor others")
	}
	(&inspection{contents: i.contents, now: i.now}).writeContents(p)
}
