package command

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/tokenkeep/tokenkeep/internal/quote"
)

// ask returns a passphrase: from the environment variable, if one was named by
// the flag, else from the terminal, where it is not shown. It asks once for each
// prompt, and with twice a second time to find slips.
func (c *call) ask(ctx context.Context, prompt, variable, flag string, twice bool) ([]byte, error) {
	if answer, ok := c.asked[prompt]; ok {
		return bytes.Clone(answer), nil
	}
	var answer []byte
	var err error
	switch {
	case variable != "":
		if answer = []byte(c.Env(variable)); len(answer) == 0 {
			return nil, &refusal{fmt.Sprintf("the environment variable %s is not set", variable), "Set it, or leave out " + flag + " to be asked.", nil}
		}
	case !isTerminal(c.Stdin):
		return nil, &refusal{"there is no terminal to ask for a passphrase on", "Give it in an environment variable that you name with " + flag + ".", nil}
	default:
		if answer, err = c.readHidden(ctx, prompt+": "); err != nil {
			return nil, err
		}
		if twice {
			again, err := c.readHidden(ctx, "The same again: ")
			if err != nil {
				return nil, err
			}
			if subtle.ConstantTimeCompare(answer, again) != 1 {
				return nil, &refusal{"the two passphrases differ", "Nothing was changed; try again.", nil}
			}
		}
	}
	c.asked[prompt] = bytes.Clone(answer)
	return answer, nil
}

// readHidden reads a line from the terminal with its echo off.
func (c *call) readHidden(ctx context.Context, prompt string) ([]byte, error) {
	fd := int(c.Stdin.(*os.File).Fd())
	c.terminal.Lock()
	defer c.terminal.Unlock()
	// The echo goes before the prompt comes, not a moment after it, as it would
	// with ReadPassword alone.
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	fmt.Fprint(c.Stderr, prompt)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	defer fmt.Fprintln(c.Stderr)
	defer term.Restore(fd, before)
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return nil, &refusal{"interrupted; nothing was changed", "", ctx.Err()}
	}
}

// confirm asks whether to go on, unless -yes says so.
func (c *call) confirm(ctx context.Context, question string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(c.Stdin) {
		return &refusal{"there is no terminal to ask on whether to go on", "Pass -yes if you are sure.", nil}
	}
	fmt.Fprint(c.Stderr, quote.Inline(question)+" [y/N] ")
	read := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(c.Stdin).ReadString('\n')
		read <- answer
	}()
	select {
	case answer := <-read:
		if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(c.Stderr)
	}
	return &refusal{"nothing was changed", "", nil}
}
