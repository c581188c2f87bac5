package main_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// TestKeyring runs it twice in a session with a real keyring, then with the
// keyring locked.
func TestKeyring(t *testing.T) {
	m := bare(t)
	bus := secretservice.StartBus(t)
	keyring := bus.StartKeyring(t, true)
	m.env = append(m.env, "DBUS_SESSION_BUS_ADDRESS="+bus.Address)
	first := m.run(t, 0)
	require.Contains(t, first, "by device code")
	require.Contains(t, first, filepath.Join(m.dir(), name+".enc")+"\nencrypted; the key comes from: keyring")
	require.NotContains(t, first, "WARNING")
	require.Len(t, bus.Items(t), 1)
	require.Contains(t, m.run(t, 0), "still there")
	require.Len(t, bus.Items(t), 1)
	require.NoFileExists(t, m.plaintext())

	keyring.Lock(t)
	locked := m.run(t, 1)
	require.Contains(t, locked, "the keyring is locked")
	require.Contains(t, locked, "What you can do")
	require.NoFileExists(t, m.plaintext(), "nothing less safe is begun beside it")
}

// TestTradeUp: what was kept in plain text moves into the encrypted file as
// soon as there is a keyring.
func TestTradeUp(t *testing.T) {
	m := bare(t)
	m.run(t, 0, "-store=plaintext")
	require.FileExists(t, m.plaintext())
	bus := secretservice.StartBus(t)
	bus.StartKeyring(t, true)
	m.env = append(m.env, "DBUS_SESSION_BUS_ADDRESS="+bus.Address)
	out := m.run(t, 0)
	require.Contains(t, out, "still there")
	require.Contains(t, out, "the key comes from: keyring")
	require.NoFileExists(t, m.plaintext())
}

// TestBareServer: where there is no keyring but the kernel's, the tokens are encrypted
// with a key in that, and nothing is said of plaintext.
func TestBareServer(t *testing.T) {
	_, err := keyring.Kernel().Get(t.Context(), "tokenkeep/"+name, "nobody")
	env.Require(t, errors.Is(err, persistence.ErrNotFound), "the kernel's keyring does not work here")
	m := bare(t)
	first := m.run(t, 0)
	require.Contains(t, first, "by device code")
	require.Contains(t, first, filepath.Join(m.dir(), name+".enc")+"\nencrypted; the key comes from: kernel")
	require.Contains(t, first, "until this machine is restarted")
	require.NotContains(t, first, "NOT encrypted")
	require.NotContains(t, first, "unencrypted")
	require.NotContains(t, first, "Config.")
	second := m.run(t, 0)
	require.Contains(t, second, "still there")
	require.NotContains(t, second, "WARNING", "it is no news")
	require.NoFileExists(t, m.plaintext())
}
