package tokenkeep_test

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	_ "github.com/tokenkeep/tokenkeep/tokensource"
)

// The control: what one package did before any program's main.
var _ = regexp.MustCompile(`^\.[a-z0-9][a-z0-9._-]{0,63}(\.enc|\.plaintext\.json)$`)

// A program that links this library starts without work for it: no package allocates
// much before main.
func TestPackagesDoNothingAtStart(t *testing.T) {
	const most, module = 4 << 10, "github.com/tokenkeep/tokenkeep" // bytes
	program := exec.Command(os.Args[0], "-test.run=^$")
	program.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := program.CombinedOutput()
	require.NoError(t, err, "%s", out)
	allocated := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^init (\S+) .* (\d+) bytes, \d+ allocs`).FindAllStringSubmatch(string(out), -1) {
		allocated[m[1]], err = strconv.Atoi(m[2])
		require.NoError(t, err)
	}
	for name, bytes := range allocated {
		if strings.HasPrefix(name, module) && name != module+"_test" && name != module+"/entratest" {
			require.LessOrEqual(t, bytes, most, name)
		}
	}
	require.Contains(t, allocated, module+"/keyring")
	require.Greater(t, allocated[module+"_test"], most)
}
