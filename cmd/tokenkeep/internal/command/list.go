package command

import (
	"context"
	"flag"
	"os"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/quote"
)

var listCommand = &command{
	name: "list", short: "list the caches on this machine, and how each is kept",
	long: "Lists the caches in the folder where programs keep them, and how each is kept, and the cache of Azure CLI, if there is one. It only looks at the files: " +
		"it asks no keyring and no person, and decrypts nothing.",
	examples: []string{"tokenkeep list", "tokenkeep list -dir /srv/app/tokens", "tokenkeep list -other ~/.contoso/cache.json", "tokenkeep list -json"},
	flags: func(set *flag.FlagSet, o *options) {
		dirFlag(set, o)
		otherFlag(set, o, "list this cache of another program, too")
	},
	run: runList,
}

type list struct {
	Dir    string       `json:"dir"`
	Caches []listedOnce `json:"caches"`
	Others []*other     `json:"others"` // of other programs
}

type listedOnce struct {
	Name string `json:"name"`
	storage
	Changed   *time.Time `json:"changed,omitempty"`
	Plaintext bool       `json:"plaintextBeside"` // there are unencrypted tokens beside the encrypted ones
}

func runList(ctx context.Context, c *call) (report, error) {
	dir, err := c.folder()
	if err != nil {
		return nil, err
	}
	all, err := scan(dir)
	if err != nil {
		return nil, err
	}
	others, err := c.others()
	if err != nil {
		return nil, err
	}
	l := &list{Dir: dir, Caches: []listedOnce{}, Others: append([]*other{}, others...)}
	for _, f := range all {
		once := listedOnce{Name: f.name, storage: f.storage(ctx), Plaintext: f.encrypted && f.plaintext}
		if fi, err := os.Stat(once.Location); once.Location != "" && err == nil {
			changed := fi.ModTime().UTC().Truncate(time.Second)
			once.Changed = &changed
		}
		l.Caches = append(l.Caches, once)
	}
	return l, nil
}

func (l *list) write(p *printer) {
	defer l.writeOthers(p)
	if len(l.Caches) == 0 {
		p.line("There is no cache in %s.", l.Dir)
		return
	}
	p.line("In %s:", l.Dir)
	width := 0
	for _, once := range l.Caches {
		width = max(width, len(once.Name))
	}
	for _, once := range l.Caches {
		how := styled(quote.Inline(once.String()))
		switch {
		case once.Backend == "plaintext" || once.err != nil:
			how = p.in(red, once.String())
		case once.Plaintext:
			how += p.in(red, ", and unencrypted tokens beside it")
		}
		if once.Changed != nil {
			how += p.in(faint, ", changed "+once.Changed.Local().Format("2006-01-02 15:04"))
		}
		p.line("  %-*s  %s", width, once.Name, how)
	}
}

func (l *list) writeOthers(p *printer) {
	if len(l.Others) == 0 {
		return
	}
	p.line("Of other programs:")
	for _, o := range l.Others {
		how := styled(quote.Inline(o.String()))
		if o.There && !o.Encrypted {
			how = p.in(red, o.String())
		}
		if o.Changed != nil {
			how += p.in(faint, ", changed "+o.Changed.Local().Format("2006-01-02 15:04"))
		}
		p.line("  %s, %s: %s", o.name(), o.Location, how)
	}
}
