//go:build linux

package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// Some work is measured in processes of its own: this very binary, which
// TestMain turns into a child when the environment says so.
const childEnv = "TOKENKEEP_BENCH_CHILD"

// order is what a child is to do.
type order struct {
	Do   string // a key of children
	Path string
	N    int
	Key  string
}

// children do what an order says in two steps: prepare, which is not measured,
// returns what is; that returns what to report, as JSON.
var children = map[string]func(order) (work func() (any, error), err error){
	"save memory":  memorySave,
	"merge memory": memoryMerge,
	"load memory":  memoryLoad,
	"lock":         lockChild,
	"open":         openChild,
	"read keyring": readChild,
}

func TestMain(m *testing.M) {
	text, isChild := os.LookupEnv(childEnv)
	if !isChild {
		os.Exit(m.Run())
	}
	if err := runChild(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runChild(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	prepare, ok := children[o.Do]
	if !ok {
		return fmt.Errorf("no child does %q", o.Do)
	}
	work, err := prepare(o)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.ReadAll(os.Stdin); err != nil { // until the parent says go
		return err
	}
	report, err := work()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// child is a running child that is ready and waits.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(o order) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(exe)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := c.out.ReadString('\n'); line != "ready\n" {
		c.cmd.Process.Kill()
		return nil, errors.Join(fmt.Errorf("the child is not ready: %q: %w", line, err), c.cmd.Wait())
	}
	return c, nil
}

// goOn lets the child do its work.
func (c *child) goOn() error { return c.in.Close() }

// report waits for the child's report.
func (c *child) report(to any) error {
	err := json.NewDecoder(c.out).Decode(to)
	if waitErr := c.cmd.Wait(); waitErr != nil {
		return waitErr
	}
	return err
}

// startAll starts children that do the same; they wait for each other.
func startAll(n int, o order) ([]*child, error) {
	all := make([]*child, n)
	for i := range all {
		var err error
		if all[i], err = start(o); err != nil {
			for _, c := range all[:i] {
				c.cmd.Process.Kill()
				c.cmd.Wait()
			}
			return nil, err
		}
	}
	return all, nil
}
