package main_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestCLI(t *testing.T) {
	p := env.BuildProgram(t)
	require.Contains(t, p.Run(t, 1, "whoami"), "nobody is signed in")
	require.Contains(t, p.Run(t, 0, "login"), "Signed in as alice@contoso.example.")
	require.Contains(t, p.Run(t, 0, "whoami"), "alice@contoso.example, with a token for [User.Read")
	require.Contains(t, p.Run(t, 0, "logout"), "Signed out alice@contoso.example.")
	require.Contains(t, p.Run(t, 1), "nobody is signed in")
	require.Contains(t, p.Run(t, 1, "dance"), "use login, logout or whoami")
}
