package command

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

var doctorCommand = &command{
	name: "doctor", args: "[CHECK...]", max: -1, short: "check what works here, and how to repair what does not",
	long: "Checks what programs need to keep a sign-in on this machine, in this session. Without arguments it runs all checks; with arguments, only those: " +
		strings.Join(checkNames(), ", ") + ". It changes nothing, asks nobody, and waits at most -timeout for each answer. " +
		"(On macOS the system itself asks for the password of a keychain that is locked.) " +
		"Its output names no user, no account and no token, so it can go into a public bug report.",
	examples: []string{"tokenkeep doctor", "tokenkeep doctor keyring", "tokenkeep doctor caches locks -dir /srv/app/tokens", "tokenkeep doctor -json"},
	public:   true,
	flags: func(set *flag.FlagSet, o *options) {
		dirFlag(set, o)
		passphraseFlag(set, o)
		otherFlag(set, o, "also check this cache of another program")
		set.BoolVar(&o.verbose, "v", false, "also show details of what is well")
		set.BoolVar(&o.names, "show-names", false, "do not hide the names of the home folder and the user")
		set.DurationVar(&o.timeout, "timeout", 5*time.Second, "the longest wait for an answer, as a `duration`")
	},
	run: runDoctor,
}

func checks() []check {
	return []check{
		{"session", "Session", checkSession, nil},
		{"keyring", "Keyring", checkKeyring, nil},
		{"dpapi", "DPAPI", checkDPAPI, func(*call) bool { return isWindows }},
		{"kernel", "Kernel's keyring", checkKernel, func(c *call) bool { return c.Kernel != nil }},
		{"passphrase", "Passphrase", checkPassphrase, nil},
		{"plaintext", "Plaintext", checkPlaintext, nil},
		{"folder", "Folder", checkFolder, nil},
		{"caches", "Caches", checkCaches, nil},
		{"locks", "Locks", checkLocks, nil},
		{"leftovers", "Left-overs", checkLeftovers, nil},
		{"unencrypted", "Unencrypted tokens", checkUnencrypted, nil},
		{"others", "Other programs", checkOthers, nil},
	}
}

func checkNames() []string {
	// Not from checks, which would be a loop of initialization.
	return []string{"session", "keyring", "dpapi", "kernel", "passphrase", "plaintext", "folder", "caches", "locks", "leftovers", "unencrypted", "others"}
}

// doctorReport is what the doctor reports.
type doctorReport struct {
	Dir      string        `json:"dir"`
	Session  []string      `json:"session"`  // ids of what is special about it
	Problems int           `json:"problems"` // how many findings are problems
	Safest   string        `json:"safest"`   // where a program would keep a new sign-in: keyring, dpapi, kernel, passphrase, or "" if not all was checked
	Checks   []checkResult `json:"checks"`

	verbose bool
	partial bool
}

func runDoctor(ctx context.Context, c *call) (report, error) {
	for _, name := range c.args {
		if !slices.Contains(checkNames(), name) {
			return nil, &misuse{fmt.Sprintf("there is no check %q", name), "There are " + strings.Join(checkNames(), ", ") + "."}
		}
	}
	if c.timeout <= 0 {
		return nil, &misuse{"-timeout must be longer than 0", "See: tokenkeep help doctor"}
	}
	dir, err := c.folder()
	if err != nil {
		return nil, err
	}
	x := &doctorRun{call: c, session: c.findSession(), caches: once(func() ([]*files, error) { return scan(dir) })}
	x.keyring = x.askKeyring()
	r := &doctorReport{Dir: c.redact(dir), Session: x.session.ids(), verbose: c.verbose, partial: len(c.args) > 0}
	for _, check := range checks() {
		if len(c.args) > 0 && !slices.Contains(c.args, check.id) || check.here != nil && !check.here(c) {
			continue
		}
		if ctx.Err() != nil {
			return nil, &refusal{"interrupted", "", ctx.Err()}
		}
		start := time.Now()
		o := check.run(ctx, x)
		o.DurationMS = float64(time.Since(start).Microseconds()) / 1000
		o.ID, o.Title = check.id, check.title
		if o.Status == "" {
			o.Status = statusOK
		}
		if o.Findings == nil {
			o.Findings = []finding{}
		}
		if o.Details == nil {
			o.Details = []string{}
		}
		o.Summary = c.redact(o.Summary)
		for i := range o.Details {
			o.Details[i] = c.redact(o.Details[i])
		}
		for i := range o.Findings {
			f := &o.Findings[i]
			f.What, f.Remedy = c.redact(f.What), c.redact(f.Remedy)
			for i := range f.Codes {
				f.Codes[i] = c.redact(f.Codes[i])
			}
			if f.Status == statusProblem {
				r.Problems++
			}
		}
		r.Checks = append(r.Checks, o)
	}
	if !r.partial {
		r.Safest = r.safest()
	}
	if r.Problems > 0 {
		return r, errProblems
	}
	return r, nil
}

// safest is where a program would keep a new sign-in that has no passphrase, or
// passphrase if nothing else works.
func (r *doctorReport) safest() string {
	for _, id := range []string{"keyring", "dpapi", "kernel", "passphrase"} {
		for _, o := range r.Checks {
			if o.ID == id && o.Status == statusOK {
				return id
			}
		}
	}
	return ""
}

var marks = map[string]struct{ mark, ascii, colour string }{
	statusOK:      {"✓", "ok", green},
	statusNote:    {"!", "!", yellow},
	statusProblem: {"✗", "x", red},
}

func (p *printer) mark(status string) string {
	if p.ascii {
		return marks[status].ascii
	}
	return marks[status].mark
}

func (r *doctorReport) write(p *printer) {
	for _, o := range r.Checks {
		p.line("[%s] %s: %s %s", p.in(marks[o.Status].colour, p.mark(o.Status)), p.in(bold, o.Title), o.Summary, p.in(faint, fmt.Sprintf("(%.0f ms)", o.DurationMS)))
		if r.verbose {
			for _, d := range o.Details {
				p.wrapped("      ", d)
			}
		}
		for _, f := range o.Findings {
			p.wrapped("    "+p.mark(f.Status)+" ", f.What)
			if f.Remedy != "" {
				p.wrapped("      ", f.Remedy)
			}
			if f.Command != "" {
				p.line("        %s", f.Command)
			}
			if len(f.Codes) > 0 {
				p.wrapped("      ", "(The system has answered: "+strings.Join(f.Codes, "; ")+".)")
			}
		}
	}
	p.line("")
	switch {
	case r.Problems > 0:
		p.line("%s %s", p.in(red, count(r.Problems, "problem")+"."), "The remedy is below each.")
	case r.partial:
		p.line("%s", p.in(green, "What was checked is well."))
	default:
		p.line("%s", p.in(green, "All is well."))
	}
	if r.partial {
		return
	}
	switch r.Safest {
	case storeKeyring:
		p.wrapped("", "A program that signs in here now keeps the sign-in encrypted, with the key in the keyring.")
	case storeDPAPI:
		p.wrapped("", "A program that signs in here now keeps the sign-in encrypted, with a key that Windows protects.")
	case storeKernel:
		p.wrapped("", "A program that signs in here now keeps the sign-in encrypted, with the key in the kernel's keyring: until the next restart, or three days without use. A program that can ask for a passphrase asks for one, and its sign-in lasts.")
	case storePassphrase:
		p.wrapped("", "A program that signs in here now needs a passphrase. If it cannot ask for one, it fails and says so, unless its author permits plaintext.")
	}
}
