package env

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Program is a program of this module, built, and a user's home folder for it to run in.
type Program struct {
	Home string
	Env  []string
	path string
}

// BuildProgram builds the program in the test's folder. It runs in an empty home, where
// no keyring of this machine is within reach.
func BuildProgram(t testing.TB) *Program {
	t.Helper()
	DependsOnSources(t, ".")
	p := &Program{Home: t.TempDir(), path: filepath.Join(t.TempDir(), "program.exe")}
	if out, err := exec.Command("go", "build", "-o", p.path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.Env = []string{"HOME=" + p.Home, "LocalAppData=" + p.Home, "SystemRoot=" + os.Getenv("SystemRoot"), "TMPDIR=" + p.Home,
		"DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(p.Home, "no-bus"), "CONTOSO_STORE=plaintext", "GORACE=atexit_sleep_ms=0"}
	return p
}

// Command is a run of the program.
func (p *Program) Command(t testing.TB, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), p.path, args...)
	cmd.Env, cmd.Dir = p.Env, p.Home
	return cmd
}

// Run runs the program, checks its exit code and returns what it printed.
func (p *Program) Run(t testing.TB, code int, args ...string) string {
	t.Helper()
	cmd := p.Command(t, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("%s: %v, want exit code %d:\n%s", strings.Join(args, " "), err, code, out)
	}
	return string(out)
}
