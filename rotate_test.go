package tokenkeep_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestRotate(t *testing.T) {
	m := newMachine(t)
	require.ErrorIs(t, tokenkeep.Rotate(ctx, m.config()), persistence.ErrNotFound)
	plain := m.withoutKeyring()
	c, err := tokenkeep.Open(ctx, plain)
	require.NoError(t, err)
	save(t, c, tokens)
	require.ErrorIs(t, tokenkeep.Rotate(ctx, plain), persistence.ErrNotFound, "plaintext has no key")
	require.NoError(t, c.Delete(ctx))

	running, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	save(t, running, tokens)
	path := filepath.Join(m.dir, "app.enc")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, tokenkeep.Rotate(ctx, m.config()))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotEqual(t, keyLine(before), keyLine(after), "another key")
	require.Equal(t, tokens, load(t, running), "a running program goes on")
	save(t, running, "{}")

	m.keyring.SetLocked(true)
	require.ErrorIs(t, tokenkeep.Rotate(ctx, m.config()), persistence.ErrKeyringLocked)
	require.Error(t, tokenkeep.Rotate(ctx, tokenkeep.Config{}))
}

// A passphrase stays the same, and the key that is made from it does not.
func TestRotateWithAPassphrase(t *testing.T) {
	m := newMachine(t)
	cfg := m.config()
	cfg.Passphrase, cfg.Store = correctHorse, "passphrase"
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, c, tokens)
	path := filepath.Join(m.dir, "app.enc")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, tokenkeep.Rotate(ctx, cfg))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotEqual(t, keyLine(before), keyLine(after))
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, tokens, load(t, c))
}

func keyLine(file []byte) string { return strings.SplitN(string(file), "\n", 3)[1] }

// An error that crosses all layers names one place and one remedy, and is read
// once.
func TestErrorsAreWordedOnce(t *testing.T) {
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	save(t, c, tokens)
	m.keyring.SetLocked(true)
	path := filepath.Join(m.dir, "app.enc")
	_, err = tokenkeep.Open(ctx, m.config())
	remedy := persistence.Remedy(err)
	require.NotEmpty(t, remedy)
	require.EqualError(t, err, "tokenkeep: open encrypted "+path+": encrypted tokens are stored here but cannot be read now, "+
		"and nothing less safe was started beside them: the keyring is locked. "+remedy)
}
