package env_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// What a killed child has put into its temporary folder goes with the test. The
// control is a child with the test's own environment.
func TestTemp(t *testing.T) {
	const variable = "TOKENKEEP_TEST_TEMP"
	if os.Getenv(variable) != "" {
		fmt.Println(os.MkdirTemp("", "child"))
		if p, err := os.FindProcess(os.Getpid()); err != nil || p.Kill() != nil {
			panic("still alive")
		}
		select {}
	}
	base := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(name, base)
	}
	left := func(variables func(t testing.TB) []string) (n int) {
		t.Run("parent", func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestTemp$")
			child.Env = append(append(os.Environ(), variable+"=1"), variables(t)...)
			if out, err := child.CombinedOutput(); err == nil || !strings.Contains(string(out), "child") {
				t.Errorf("%v: %s, want the name of a folder, and a kill", err, out)
			}
		})
		names, err := filepath.Glob(filepath.Join(base, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	if n := left(env.Temp); n != 0 {
		t.Errorf("%d folders are left behind", n)
	}
	if n := left(func(testing.TB) []string { return nil }); n != 1 {
		t.Errorf("%d folders are left behind without Temp, want 1: this test proves nothing", n)
	}
}
