package main_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestWatch(t *testing.T) {
	out := env.BuildProgram(t).Run(t, 0)
	require.Contains(t, out, "alice@contoso.example has signed in elsewhere.\nSigned in: [alice@contoso.example]\n")
	require.Contains(t, out, "alice@contoso.example has signed out elsewhere.\nSigned in: []\n")
}
