package command

import (
	"context"
	"flag"
	"time"
)

var inspectCommand = &command{
	name: "inspect", args: "NAME", min: 1, max: 1, short: "show who is signed in, which tokens there are, when they expire",
	long: "Shows what a cache holds: of an MSAL library the accounts and their tokens, for which client and which scopes, and when they expire; " +
		"of package tokensource the tokens of other providers. " +
		"It never shows a secret, not even a part of one. It changes nothing.",
	examples: []string{"tokenkeep inspect contoso-cli", "tokenkeep inspect contoso-cli -json", "tokenkeep inspect contoso-cli -passphrase-env CONTOSO_PASSPHRASE"},
	flags:    func(set *flag.FlagSet, o *options) { dirFlag(set, o); passphraseFlag(set, o) },
	run:      runInspect,
}

type inspection struct {
	Name string `json:"name"`
	kept
	Plaintext bool `json:"plaintextBeside"`
	*contents
	now time.Time
}

func runInspect(ctx context.Context, c *call) (report, error) {
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
	i := &inspection{f.name, f.kept(ctx), f.encrypted && f.plaintext, sum, now}
	if f.encrypted {
		i.KeySource = from.store
	}
	return i, nil
}

func (i *inspection) write(p *printer) {
	p.line("%s: %s", p.in(bold, i.Name), i.kept)
	p.line("  in %s", i.Location)
	if i.Plaintext {
		p.line("  %s", p.in(red, "There are unencrypted tokens beside it; see tokenkeep doctor."))
	}
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
