//go:build !windows

// Tests for Windows also run under Wine, where there is no command go.

package env_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

const childVariable = "TOKENKEEP_TEST_DEPENDS"

// What go test takes for the inputs of a test are the files in its log.
func TestDependsOnSources(t *testing.T) {
	examples := filepath.Join("..", "..", "..", "examples", "cli")
	switch os.Getenv(childVariable) {
	case "yes":
		env.DependsOnSources(t, "./"+filepath.ToSlash(examples))
		return
	case "no": // the control
		return
	}
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	require.NoError(t, err)
	for child, depends := range map[string]bool{"yes": true, "no": false} {
		log := filepath.Join(t.TempDir(), "log")
		cmd := exec.Command(os.Args[0], "-test.run=^TestDependsOnSources$", "-test.testlogfile="+log)
		cmd.Env = append(os.Environ(), childVariable+"="+child)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		inputs := filepath.ToSlash(string(text))
		for _, file := range []string{"examples/cli/main.go", "tokenkeep.go", "internal/merge/merge.go"} {
			line := "stat " + filepath.ToSlash(root) + "/" + file + "\n"
			if depends {
				require.Contains(t, inputs, line)
			} else {
				require.NotContains(t, inputs, line)
			}
		}
		require.NotContains(t, inputs, "README.md")
	}
}
