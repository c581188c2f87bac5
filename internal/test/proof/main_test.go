package proof

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// With this variable set, the test program is a process of a test: it runs one
// of programs.
const programVariable = "TOKENKEEP_PROOF_PROGRAM"

// programs are what the test program can be. Each file adds its own.
var programs = map[string]func(args []string) error{}

func init() {
	if os.Getenv(programVariable) != "" {
		runtime.LockOSThread() // for sweep.Begin
	}
}

func TestMain(m *testing.M) {
	name := os.Getenv(programVariable)
	if name == "" {
		status := m.Run()
		os.RemoveAll(built)
		os.Exit(status)
	}
	program, ok := programs[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such program:", name)
		os.Exit(2)
	}
	if err := program(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// long says that everything is to run many times.
var long = os.Getenv("TOKENKEEP_LONG") == "1"

// times returns how often something runs.
func times(short, inLongMode int) int {
	if long {
		return inLongMode
	}
	return short
}

// executableVariable tells a test program in a mount namespace of its own what
// executable has built.
const executableVariable = "TOKENKEEP_PROOF_EXECUTABLE"

// built is the folder of the program that executable has built, or "".
var built string

// executable returns what the processes of the tests are: this test program,
// also with the race detector. In long mode it is one that is built without the
// race detector, under which MSAL takes six times as long.
var executable = sync.OnceValues(func() (path string, err error) {
	if !long {
		return os.Executable()
	}
	if path = os.Getenv(executableVariable); path != "" {
		return path, nil
	}
	if built, err = os.MkdirTemp("", "proof"); err != nil {
		return "", err
	}
	path = filepath.Join(built, "proof.exe")
	out, err := exec.Command("go", "test", "-c", "-race=false", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go test -c: %w: %s", err, out)
	}
	return path, nil
})

// patient is for calls that nothing but a defect can keep waiting.
func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 4*time.Minute)
}

// random returns a source of random numbers for a test, and logs its seed.
func random(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// process is a process of a test. It reports by lines on its standard output.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	errors bytes.Buffer
	ended  bool
}

// start starts one of programs. What is left of it when the test ends is killed.
func start(t testing.TB, program string, args ...string) *process {
	t.Helper()
	exe, err := executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(exe, args...)}
	p.cmd.Env = append(os.Environ(), programVariable+"="+program, "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = &p.errors
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewScanner(out)
	p.out.Buffer(nil, 16<<20)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		if !p.ended {
			p.kill()
		}
	})
	return p
}

// line returns the next line that the process reports, and false if it has
// ended.
func (p *process) line() (string, bool) {
	if !p.out.Scan() {
		return "", false
	}
	return p.out.Text(), true
}

// expect waits until the process reports that line.
func (p *process) expect(line string) {
	p.t.Helper()
	got, ok := p.line()
	if !ok {
		p.wait()
	}
	require.Equal(p.t, line, got)
}

// begin lets a process go on that waits in ready.
func (p *process) begin() { p.in.Close() }

// lines returns all that the process reports from now until its end.
func (p *process) lines() (all []string) {
	for {
		line, ok := p.line()
		if !ok {
			return all
		}
		all = append(all, line)
	}
}

// wait waits for the process to end well.
func (p *process) wait() {
	p.t.Helper()
	p.ended = true
	err := p.cmd.Wait()
	if err != nil || p.errors.Len() > 0 {
		p.t.Fatalf("%v: %s", err, p.errors.Bytes())
	}
}

// kill ends the process where it is, and waits for that. It returns the lines
// that it had still reported. A process that has ended by itself is a failure.
func (p *process) kill() []string {
	p.t.Helper()
	p.cmd.Process.Kill()
	return p.afterKill()
}

func (p *process) afterKill() []string {
	p.t.Helper()
	left, err := p.rest()
	var exit *exec.ExitError
	if p.errors.Len() > 0 || !errors.As(err, &exit) || exit.Exited() && runtime.GOOS != "windows" {
		p.t.Errorf("ended before it was killed: %v: %s", err, p.errors.Bytes())
	}
	return left
}

// rest returns what the process reports until its end, and how it ended.
func (p *process) rest() ([]string, error) {
	left := p.lines()
	p.ended = true
	return left, p.cmd.Wait()
}

// report reports a line.
func report(line ...any) {
	if _, err := fmt.Println(line...); err != nil {
		os.Exit(3) // the test has gone
	}
}

// ready says that the process has come so far, and waits until it may go on.
func ready() {
	report("ready")
	io.Copy(io.Discard, os.Stdin)
}

// all starts n processes, has them begin together, waits for them and returns
// what each reported.
func all(t testing.TB, n int, program string, args func(i int) []string) [][]string {
	t.Helper()
	var started []*process
	for i := range n {
		started = append(started, start(t, program, args(i)...))
	}
	for _, p := range started {
		p.expect("ready")
	}
	for _, p := range started {
		p.begin()
	}
	reports := make([][]string, n)
	for i, p := range started {
		reports[i] = p.lines()
		p.wait()
	}
	return reports
}

// dirFiles returns the names in a folder, without those of locks.
func dirFiles(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	var names []string
	for _, e := range entries {
		if !strings.Contains(e.Name(), ".lock") || strings.HasSuffix(e.Name(), ".tmp") {
			names = append(names, e.Name())
		}
	}
	return names
}

func temporary(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return filepath.Ext(name) != ".tmp" })
}
