package main_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestExclusive(t *testing.T) {
	out := env.BuildProgram(t).Run(t, 0)
	require.Contains(t, out, "process 1: a token for alice@contoso.example\nprocess 2: a token for alice@contoso.example\ntoken requests: 1\n")
}
