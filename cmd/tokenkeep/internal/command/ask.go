package command

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

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
		return nil, noTerminal(runtime.GOOS, flag)
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

// noTerminal is the refusal if nobody can be asked. system is a value of runtime.GOOS.
func noTerminal(system, flag string) *refusal {
	advice := "Give it in an environment variable that you name with " + flag + "."
	if system == "windows" {
		advice += " In a terminal that is no console of Windows, such as Git Bash's, start the command with winpty."
	}
	return &refusal{"cannot ask for a passphrase, because there is no terminal", advice, nil}
}

// readHidden reads a line from the terminal with its echo off. The echo is on again
// when readHidden returns, also when ctx ends: the goroutine that still waits for the
// line then no longer touches the terminal.
func (c *call) readHidden(ctx context.Context, prompt string) ([]byte, error) {
	terminal := c.Stdin.(*os.File)
	c.terminal.Lock()
	defer c.terminal.Unlock()
	// The echo is off before the prompt is there.
	restore, err := hideInput(terminal)
	if err != nil {
		return nil, err
	}
	defer fmt.Fprintln(c.Stderr)
	defer func() { restore(ctx.Err() != nil) }()
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	fmt.Fprint(c.Stderr, prompt)
	go func() {
		text, err := readLine(terminal)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		if l.err != nil {
			return nil, &refusal{"no passphrase was given; nothing was changed", "", l.err}
		}
		return l.text, nil
	case <-ctx.Done():
		return nil, errInterrupted(ctx)
	}
}

func errInterrupted(ctx context.Context) error {
	return &refusal{"interrupted; nothing was changed", "", context.Cause(ctx)}
}

// readLine reads up to the end of the line, and nothing after it.
func readLine(r io.Reader) (line []byte, err error) {
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		switch {
		case n == 1 && b[0] == '\n':
			return bytes.TrimSuffix(line, []byte("\r")), nil
		case n == 1:
			line = append(line, b[0])
		case err == io.EOF && len(line) > 0:
			return line, nil
		case err != nil:
			return nil, err
		}
	}
}

// confirm asks whether to go on, unless -yes says so.
func (c *call) confirm(ctx context.Context, question string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(c.Stdin) {
		return &refusal{"cannot ask whether to go on, because there is no terminal", "Pass -yes if you are sure.", nil}
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
