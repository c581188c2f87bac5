package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/keyring"
)

// Machine is the environment of a run. Tests give it other keyrings.
type Machine struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            func(string) string
	Keyring        keyring.Keyring // the operating system's
	Kernel         keyring.Keyring // the Linux kernel's; nil if there is none
	Cost           encrypted.Cost  // of passphrases
	Root           string          // before the paths that tell a container; "" except in tests
	Patience       time.Duration   // with other processes' locks; 0 for that of programs
}

// The exit codes.
const (
	ExitFine    = 0
	ExitProblem = 1
	ExitMisuse  = 2
)

// command is one of the program's commands.
type command struct {
	name     string
	args     string // as in its usage line
	min, max int    // how many arguments it takes; max < 0 for any number
	short    string // what it does, for the list
	long     string // what else the user should know
	examples []string
	public   bool // whether nothing that it prints names the user
	flags    func(*flag.FlagSet, *options)
	run      func(context.Context, *call) (report, error)
}

// report is what a command found out or did. It is also what -json prints.
type report interface{ write(*printer) }

// errProblems makes the program exit as after an error, without a message: the report
// says it all.
var errProblems = errors.New("there are problems")

// options are the values of all flags; a command has some of them.
type options struct {
	json, names, yes, secrets, verbose bool
	dir, to, toDir, out, other         string
	passphraseEnv, newPassphraseEnv    string
	timeout                            time.Duration
}

// call is one run of a command.
type call struct {
	*Machine
	options
	command *command
	args    []string
	asked   map[string][]byte // passphrases, so that nobody is asked twice

	terminal sync.Mutex // of who has its echo off
}

// Run runs the program with these arguments and returns its exit code.
func Run(ctx context.Context, args []string, m *Machine) int {
	c := &call{Machine: m, asked: map[string][]byte{}}
	c.json = slices.ContainsFunc(args, func(a string) bool { return a == "-json" || a == "--json" }) // for an error before it is parsed
	rep, err := c.dispatch(ctx, args)
	if no := new(refusal); err != nil && ctx.Err() != nil && !errors.As(err, &no) {
		err = &refusal{"interrupted", "", err}
	}
	// A question that was interrupted may still be about to turn the terminal's echo
	// on; wait for that, and let no other question begin.
	c.terminal.Lock()
	var out bytes.Buffer
	switch {
	case c.json:
		c.writeJSON(&out, rep, err)
	case rep != nil:
		rep.write(&printer{&out, isTerminal(m.Stdout) && enableColour(m.Stdout) && c.wantsColour(), isWindows && !c.showsGlyphs()})
	}
	if _, writeErr := m.Stdout.Write(out.Bytes()); writeErr != nil && err == nil {
		err = writeErr
	}
	if err == nil {
		return ExitFine
	}
	if !errors.Is(err, errProblems) {
		what, remedy := c.explain(err)
		c.tell(strings.TrimSuffix(what+" "+remedy, " "))
	}
	var target *misuse
	if errors.As(err, &target) {
		return ExitMisuse
	}
	return ExitProblem
}

// dispatch finds the command and runs it.
func (c *call) dispatch(ctx context.Context, args []string) (report, error) {
	if len(args) == 0 {
		return nil, &misuse{"no command is given", "See: tokenkeep help"}
	}
	name := args[0]
	switch name {
	case "help", "-h", "-help", "--help":
		for _, a := range args[1:] {
			if !strings.HasPrefix(a, "-") {
				return helpFor(a)
			}
		}
		return overview{}, nil
	case "-version", "--version":
		name = "version"
	}
	i := slices.IndexFunc(commands(), func(cmd *command) bool { return cmd.name == name })
	if i < 0 {
		return nil, &misuse{fmt.Sprintf("there is no command %q", name), "See: tokenkeep help"}
	}
	c.command = commands()[i]
	set := c.command.flagSet(&c.options)
	rest, err := parse(set, args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return helpFor(name)
	}
	seeHelp := "See: tokenkeep help " + name
	if err != nil {
		return nil, &misuse{err.Error(), seeHelp}
	}
	if len(rest) < c.command.min {
		return nil, &misuse{name + " needs " + c.command.args, seeHelp}
	}
	if c.command.max >= 0 && len(rest) > c.command.max {
		return nil, &misuse{fmt.Sprintf("%s does not take %q", name, rest[c.command.max]), seeHelp}
	}
	c.args = rest
	return c.command.run(ctx, c)
}

func (cmd *command) flagSet(o *options) *flag.FlagSet {
	set := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	if cmd.flags != nil {
		cmd.flags(set, o)
	}
	set.BoolVar(&o.json, "json", o.json, "print one JSON object")
	return set
}

// parse is set.Parse that takes flags after arguments, too.
func parse(set *flag.FlagSet, args []string) (rest []string, err error) {
	for len(args) > 0 {
		if err := set.Parse(args); err != nil {
			return nil, err
		}
		left := set.Args()
		if parsed := len(args) - len(left); parsed > 0 && args[parsed-1] == "--" {
			return append(rest, left...), nil
		}
		if len(left) == 0 {
			break
		}
		rest, args = append(rest, left[0]), left[1:]
	}
	return rest, nil
}

// Flags that several commands have.

func dirFlag(set *flag.FlagSet, o *options) {
	set.StringVar(&o.dir, "dir", "", "look in this `folder` instead of the platform's own")
}

func passphraseFlag(set *flag.FlagSet, o *options) {
	set.StringVar(&o.passphraseEnv, "passphrase-env", "", "take the passphrase from this environment `variable`, and ask nobody")
}

func newPassphraseFlag(set *flag.FlagSet, o *options) {
	set.StringVar(&o.newPassphraseEnv, "new-passphrase-env", "", "take the new passphrase from this environment `variable`, and ask nobody")
}

func yesFlag(set *flag.FlagSet, o *options) { set.BoolVar(&o.yes, "yes", false, "do not ask") }

// explain is the function explain, redacted if the command's output is public.
func (c *call) explain(err error) (what, remedy string) {
	what, remedy = explain(err)
	if c.command != nil && c.command.public {
		return c.redact(what), c.redact(remedy)
	}
	return what, remedy
}

// tell prints a line on standard error, quoted: others may have written parts of it.
func (c *call) tell(text string) { fmt.Fprintln(c.Stderr, "tokenkeep: "+quote.Inline(text)) }

// writeJSON writes the one object of -json.
func (c *call) writeJSON(w io.Writer, rep report, err error) {
	type failure struct {
		Message string `json:"message"`
		Remedy  string `json:"remedy,omitempty"`
		Class   string `json:"class"`
		// What the system has answered, as in the findings of doctor.
		Codes []string `json:"codes,omitempty"`
	}
	object := struct {
		SchemaVersion int      `json:"schemaVersion"`
		Command       string   `json:"command"`
		OK            bool     `json:"ok"`
		Result        report   `json:"result,omitempty"`
		Error         *failure `json:"error,omitempty"`
	}{SchemaVersion: 1, OK: err == nil, Result: rep}
	if c.command != nil {
		object.Command = c.command.name
	}
	if err != nil && !errors.Is(err, errProblems) {
		what, remedy := c.explain(err)
		object.Error = &failure{strings.TrimSuffix(what, "."), remedy, classOf(err), rawcode.Of(err)}
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	e.Encode(object)
	safe := quote.JSON(text.Bytes())
	if isWindows { // PowerShell 5 takes what it reads from a program for another encoding
		safe = asciiJSON(safe)
	}
	w.Write(safe)
}

// showsGlyphs reports whether the screen of Windows certainly shows what is not
// ASCII. Raster fonts have no check marks, and redirected output may be read in
// another encoding.
func (c *call) showsGlyphs() bool {
	return isTerminal(c.Stdout) && (c.Env("WT_SESSION") != "" || c.Env("TERM_PROGRAM") != "")
}

func (c *call) wantsColour() bool { return c.Env("NO_COLOR") == "" && c.Env("TERM") != "dumb" }

// isTerminal reports whether stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
