// Package sweep runs a command many times under strace, each time with one more
// of its system calls tampered with: killed just before it, or made to fail.
package sweep

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// FileCalls are the system calls by which a Linux program changes files.
var FileCalls = []string{
	"openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "fchmod", "fchmodat",
	"renameat", "renameat2", "linkat", "unlinkat", "mkdirat", "flock", "fcntl", "close",
}

// What is done to a system call.
const (
	Kill   = "signal=SIGKILL" // the process dies just before it
	EIO    = "error=EIO"
	ENOSPC = "error=ENOSPC"
	EINTR  = "error=EINTR"
	ENOLCK = "error=ENOLCK"
)

// Run is one run of the command.
type Run struct {
	Call   string // the system call that was tampered with
	Nth    int    // which one of its kind, from 1
	What   string
	OK     bool // the command exited with 0
	Output []byte
}

func (r Run) String() string { return fmt.Sprintf("%s #%d %s", r.Call, r.Nth, r.What) }

// marker is a path that does not exist; to open it is to call [Begin].
const marker = "/tokenkeep sweep begins"

// Begin is called by the command, once, where the tampering is to begin. It
// must run on a goroutine that was locked to the main thread in an init function
// (runtime.LockOSThread), as system calls are counted for each thread.
func Begin() { os.Open(marker) }

// Each runs the command that command returns, once for every system call of the
// kinds in calls that it makes after its [Begin], does what to that call, and
// has check look at the result. command is called before every run. Each returns
// how many calls were tampered with. Without a strace that works the test is
// skipped, and fails where the environment variable CI is true.
func Each(t testing.TB, calls []string, what string, command func() []string, check func(Run)) int {
	t.Helper()
	before, after := map[string]int{}, map[string]int{}
	begun, thread := false, ""
	lines := Trace(t, append([]string{"openat"}, calls...), command())
	for _, line := range lines {
		if strings.Contains(line, marker) {
			begun = true
			thread, _, _ = strings.Cut(line, " ")
		}
	}
	if !begun {
		t.Fatal("the command does not call sweep.Begin")
	}
	begun = false
	for _, line := range lines {
		tid, rest, _ := strings.Cut(line, " ")
		call, _, isCall := strings.Cut(strings.TrimSpace(rest), "(")
		if tid != thread || !isCall || strings.HasPrefix(call, "<") {
			continue
		}
		switch {
		case !begun:
			before[call]++
		case !strings.Contains(rest, "<anon_inode:[eventfd]"): // Go's scheduler makes these, now and then
			after[call]++
		}
		begun = begun || strings.Contains(line, marker)
	}
	log := filepath.Join(t.TempDir(), "trace")
	total := 0
	for _, call := range calls {
		for n := 1; ; n++ {
			args := []string{"-o", log, "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, what, before[call]+n)}
			if what != Kill { // much faster, but strace 6.1 loses signals with it
				args = append(args, "--seccomp-bpf")
			}
			var out []byte
			var err error
			done := false
			for try := 1; !done; try++ {
				out, err = strace(append(args, command()...)...).CombinedOutput()
				trace, readErr := os.ReadFile(log)
				if readErr != nil {
					t.Fatalf("strace wrote no log: %v: %s", readErr, out)
				}
				done = bytes.Contains(trace, []byte("INJECTED")) || bytes.Contains(trace, []byte("= ?"))
				if !done && n > after[call] {
					break // the scheduler's were there, too
				}
				if !done && try == 5 {
					t.Fatalf("%s #%d was not tampered with: %v: %s", call, n, err, out)
				}
			}
			if !done {
				break
			}
			total++
			check(Run{Call: call, Nth: n, What: what, OK: err == nil, Output: out})
		}
	}
	return total
}

// Trace runs the command and returns the lines of its trace, one for each system
// call of the kinds in calls.
func Trace(t testing.TB, calls []string, command []string) []string {
	t.Helper()
	need(t)
	log := filepath.Join(t.TempDir(), "trace")
	args := append([]string{"-y", "-o", log, "-e", "trace=" + strings.Join(calls, ",")}, command...)
	if out, err := strace(args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	trace, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(trace)), "\n")
}

func strace(args ...string) *exec.Cmd {
	cmd := exec.Command("strace", append([]string{"-f", "-qq", "-e", "signal=none"}, args...)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return cmd
}

func need(t testing.TB) {
	t.Helper()
	if out, err := exec.Command("strace", "-f", "-qq", "--seccomp-bpf", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		why := fmt.Sprintf("needs strace 5.3, and the right to trace: %v %s", err, out)
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
}
