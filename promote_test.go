package tokenkeep_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// stubborn is a keyring from which nothing can be deleted.
type stubborn struct{ *keyringtest.Keyring }

func (stubborn) Delete(context.Context, string, string) error {
	return errors.New("no permission to delete")
}

func (m *machine) plaintextPath() string { return filepath.Join(m.dir, "app.plaintext.json") }

// However many keys wait for their removal, a plaintext file that was copied
// once is not copied again: that would bring back an account that was signed out
// since.
func TestKeysLeaveRoomForThePromotion(t *testing.T) {
	m := newMachine(t)
	ssh, err := tokenkeep.Open(ctx, m.withoutKeyring())
	require.NoError(t, err)
	save(t, ssh, fromSSH)
	cfg := m.config()
	cfg.AllowPlaintext = true
	c, err := tokenkeep.Open(ctx, cfg) // promotes it
	require.NoError(t, err)
	require.Equal(t, fromSSH, load(t, c))
	save(t, c, "{}")

	keys := keyring.NewKeySource(stubborn{m.keyring}, "tokenkeep/app")
	lock := persistence.NewFileLock(filepath.Join(m.dir, "app.lock"))
	file, err := encrypted.New(filepath.Join(m.dir, "app.enc"), keys, &encrypted.Options{Name: "app", Lock: lock})
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, file.Rotate(ctx, keys))
	}
	require.Greater(t, len(m.keyring.Items()), 10, "else nothing waits")

	// As if the process had been killed before it removed the file.
	require.NoError(t, os.WriteFile(m.plaintextPath(), []byte(fromSSH), 0o600))
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, "{}", load(t, c))
	require.Equal(t, []string{"app.enc"}, m.files())
}
