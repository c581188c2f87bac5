package command

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Without a terminal the refusal says what to do, also in a terminal that Windows
// does not know as one.
func TestNoTerminal(t *testing.T) {
	c := &call{Machine: &Machine{Stdin: strings.NewReader("planted\n"), Env: os.Getenv}}
	_, err := c.ask(t.Context(), "Passphrase", "", "-passphrase-env", false)
	require.ErrorContains(t, err, "no terminal")
	for system, winpty := range map[string]bool{"windows": true, "linux": false, "darwin": false} {
		no := noTerminal(system, "-passphrase-env")
		require.Contains(t, no.remedy, "-passphrase-env")
		require.Equal(t, winpty, strings.Contains(no.remedy, "winpty"))
	}
}
