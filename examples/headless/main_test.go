package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestHeadless(t *testing.T) {
	const passphrase = "a planted passphrase"
	p := env.BuildProgram(t)
	out := p.Run(t, 1)
	require.Contains(t, out, "CONTOSO_PASSPHRASE is not set")

	dir := filepath.Join(p.Home, "state")
	p.Env = append(p.Env, "STATE_DIRECTORY="+dir, "CONTOSO_PASSPHRASE="+passphrase)
	first := p.Run(t, 0)
	require.Contains(t, first, "A token from the authority")
	second := p.Run(t, 0)
	require.Contains(t, second, "A token from the cache")
	file, err := os.ReadFile(filepath.Join(dir, "contoso-example-service.enc"))
	require.NoError(t, err)
	require.Contains(t, string(file), "key passphrase ")
	require.NotContains(t, string(file), "AccessToken")

	p.Env = append(p.Env, "CONTOSO_PASSPHRASE=mistyped")
	wrong := p.Run(t, 1)
	require.Contains(t, wrong, "wrong key or passphrase")
	for _, out := range []string{out, first, second, wrong} {
		require.NotContains(t, out, passphrase)
		require.NotContains(t, out, "mistyped")
	}
}

func TestHeadlessWithAKeyFile(t *testing.T) {
	p := env.BuildProgram(t)
	dir, key := filepath.Join(p.Home, "state"), filepath.Join(p.Home, "key")
	p.Env = append(p.Env, "STATE_DIRECTORY="+dir, "CONTOSO_KEY_FILE="+key)
	require.Contains(t, p.Run(t, 1), "does not exist")
	const text = "cGxhbnRlZC1rZXktcGxhbnRlZC1rZXktcGxhbnRlZC0="
	require.NoError(t, os.WriteFile(key, []byte(text), 0o600))
	require.Contains(t, p.Run(t, 0), "A token from the authority")
	require.Contains(t, p.Run(t, 0), "A token from the cache")
	file, err := os.ReadFile(filepath.Join(dir, "contoso-example-service.enc"))
	require.NoError(t, err)
	require.Contains(t, string(file), "key file ")

	require.NoError(t, os.WriteFile(key, []byte("A"+text[1:]), 0o600))
	wrong := p.Run(t, 1)
	require.Contains(t, wrong, "wrong key or passphrase")
	require.NotContains(t, wrong, text[1:])
	require.NoError(t, os.WriteFile(key, []byte(text), 0o600))
	require.Contains(t, p.Run(t, 0), "A token from the cache", "nothing was set aside")
}
