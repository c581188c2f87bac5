package main_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestShared(t *testing.T) {
	out := env.BuildProgram(t).Run(t, 0)
	for _, line := range []string{
		"first program:  alice@contoso.example has signed in\n",
		"second program: it is alice@contoso.example; nobody was asked\n",
		"second program: signed out\n",
		"first program:  0 accounts are left\n",
	} {
		require.Contains(t, out, line)
	}
}
