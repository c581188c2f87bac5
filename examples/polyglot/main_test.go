package main_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestPolyglot(t *testing.T) {
	const python = "/usr/bin/python3"
	env.Require(t, exec.Command(python, "-c", "import msal, msal_extensions, portalocker").Run() == nil,
		"MSAL Python's extensions are not installed: apt-get install python3-msal-extensions")
	out := env.BuildProgram(t).Run(t, 0, "-python", python)
	var said []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Go: ") || strings.HasPrefix(line, "Python: ") {
			said = append(said, strings.TrimSpace(line))
		}
	}
	require.Equal(t, []string{
		"Go: alice@contoso.example has signed in",
		"Python: it is alice@contoso.example; here is a token",
		"Python: signed out",
		"Go: nobody is signed in",
		"Python: it is alice@contoso.example; here is a token",
		"Go: it is alice@contoso.example; here is a token",
		"Go: signed out",
		"Python: nobody is signed in",
	}, said, "%s", out)
}
