package main_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
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
	m.run(t, 0)
	require.FileExists(t, m.plaintext())
	bus := secretservice.StartBus(t)
	bus.StartKeyring(t, true)
	m.env = append(m.env, "DBUS_SESSION_BUS_ADDRESS="+bus.Address)
	out := m.run(t, 0)
	require.Contains(t, out, "still there")
	require.Contains(t, out, "the key comes from: keyring")
	require.NoFileExists(t, m.plaintext())
}
