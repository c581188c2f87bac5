package command

import (
	"flag"
	"fmt"
	"slices"
)

type overview struct{}

func (overview) write(p *printer) {
	p.line("tokenkeep looks after the sign-ins that programs keep on this machine.\n")
	p.line("Usage: tokenkeep COMMAND [arguments]\n")
	for _, cmd := range commands() {
		p.line("  %-12s%s", cmd.name, cmd.short)
	}
	p.line("\ntokenkeep help COMMAND says more, with examples. If something does not work, start\nwith: tokenkeep doctor")
}

type help struct{ *command }

func helpFor(name string) (report, error) {
	i := slices.IndexFunc(commands(), func(cmd *command) bool { return cmd.name == name })
	if i < 0 {
		return nil, &misuse{fmt.Sprintf("there is no command %q", name), "See: tokenkeep help"}
	}
	return help{commands()[i]}, nil
}

func (h help) write(p *printer) {
	args := h.args
	if args != "" {
		args = " " + args
	}
	p.line("Usage: tokenkeep %s%s [flags]\n", h.name, args)
	p.wrapped("", h.long)
	p.line("\nFlags:")
	h.flagSet(new(options)).VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		if value != "" {
			value = " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		p.line("  %-30s%s", "-"+f.Name+value, usage)
	})
	p.line("\nExamples:")
	for _, e := range h.examples {
		p.line("  %s", e)
	}
}

// MarshalJSON makes help with -json the same text as an object.
func (h help) MarshalJSON() ([]byte, error) { return jsonText(h) }

// MarshalJSON is that of help.
func (o overview) MarshalJSON() ([]byte, error) { return jsonText(o) }
