package tokenkeep_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// keyVariable sets a variable to a key whose bytes are all b, until the end of the
// test.
func keyVariable(t *testing.T, name string, b byte) encrypted.KeySource {
	key := make([]byte, 32)
	for i := range key {
		key[i] = b
	}
	t.Setenv(name, base64.StdEncoding.EncodeToString(key))
	return encrypted.Env(name)
}

// A key that somebody else keeps is never certainly gone.
func TestOwnKey(t *testing.T) {
	m := newMachine(t)
	cfg := m.permitting()
	cfg.Key = keyVariable(t, "TOKENKEEP_TEST_KEY", 1)
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, c, tokens)
	require.Equal(t, "env", choiceOf(t, c).InUse.KeySource)
	require.Empty(t, m.keyring.Calls(), "no keyring is asked")
	before, err := os.ReadFile(filepath.Join(m.dir, "app.enc"))
	require.NoError(t, err)

	for class, value := range map[error]string{
		persistence.ErrUnavailable: "",
		persistence.ErrWrongKey:    base64.StdEncoding.EncodeToString(make([]byte, 32)),
	} {
		t.Setenv("TOKENKEEP_TEST_KEY", value)
		for range 2 {
			_, err := tokenkeep.Open(ctx, cfg)
			require.ErrorIs(t, err, class)
			require.NotEmpty(t, persistence.Remedy(err))
			if value != "" {
				require.NotContains(t, err.Error(), value)
			}
		}
		require.NotErrorIs(t, tokenkeep.Rotate(ctx, cfg), nil)
		after, err := os.ReadFile(filepath.Join(m.dir, "app.enc"))
		require.NoError(t, err)
		require.Equal(t, before, after, "nothing was changed or set aside")
		require.Equal(t, []string{"app.enc"}, m.files())
	}
	keyVariable(t, "TOKENKEEP_TEST_KEY", 1)
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, tokens, load(t, c))
	require.Empty(t, m.takeWarnings())
}

// Rotate takes the old key and the new one, and running programs that have both go
// on.
func TestRotateOwnKey(t *testing.T) {
	m := newMachine(t)
	before := m.config()
	before.Key = keyVariable(t, "TOKENKEEP_TEST_OLD", 1)
	c, err := tokenkeep.Open(ctx, before)
	require.NoError(t, err)
	save(t, c, tokens)
	require.ErrorContains(t, tokenkeep.Rotate(ctx, before), "the file has already")

	without := m.config()
	without.Key = keyVariable(t, "TOKENKEEP_TEST_NEW", 2)
	require.ErrorIs(t, tokenkeep.Rotate(ctx, without), persistence.ErrWrongKey)
	both := without
	both.OldKey = before.Key
	running, err := tokenkeep.Open(ctx, both)
	require.NoError(t, err)
	require.Equal(t, tokens, load(t, running))
	require.NoError(t, tokenkeep.Rotate(ctx, both))
	for range 2 {
		require.Equal(t, tokens, load(t, running))
		save(t, running, fromSSH)
		save(t, running, tokens)
	}
	c, err = tokenkeep.Open(ctx, without)
	require.NoError(t, err)
	require.Equal(t, tokens, load(t, c))
	_, err = tokenkeep.Open(ctx, before)
	require.ErrorIs(t, err, persistence.ErrWrongKey)
	require.Equal(t, []string{"app.enc"}, m.files())
}

// Sign-ins that are kept already get the program's key because the program asks for
// it, and their old key goes.
func TestRotateToOwnKey(t *testing.T) {
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	save(t, c, tokens)
	cfg := m.config()
	cfg.Key = keyVariable(t, "TOKENKEEP_TEST_KEY", 1)
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, "keyring", c.Describe().KeySource, "not by itself")
	require.NoError(t, tokenkeep.Rotate(ctx, cfg))
	require.Equal(t, tokens, load(t, c), "a running program goes on")
	require.Equal(t, "env", c.Describe().KeySource)
	m.keyring.SetAbsent(true)
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, tokens, load(t, c))

	cfg.Order = []string{"keyring"} // the program's key is left out
	_, err = tokenkeep.Open(ctx, cfg)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
}

// In memory only where nothing can be stored, and nothing is.
func TestMemoryAtLast(t *testing.T) {
	for name, place := range map[string]func(t *testing.T, m *machine) string{
		"a file where the folder should be": func(t *testing.T, m *machine) string {
			path := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			return path
		},
		"no folder can be made": func(t *testing.T, m *machine) string {
			path := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			return filepath.Join(path, "sub")
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			cfg := m.config()
			cfg.Dir, cfg.Order = place(t, m), []string{"keyring", "memory"}
			c, err := tokenkeep.Open(ctx, cfg)
			require.NoError(t, err)
			save(t, c, tokens)
			require.Equal(t, tokens, load(t, c))
			choice := choiceOf(t, c)
			require.Equal(t, "memory", choice.InUse.Backend)
			require.Equal(t, tokenkeep.ByOrder, choice.By)
			require.Len(t, choice.Refusals, 1)
			warnings := m.takeWarnings()
			require.Len(t, warnings, 1)
			require.Contains(t, warnings[0].Message, "not stored")
			require.Contains(t, warnings[0].Reason, "keyring: ")
			cfg.Order = []string{"keyring"}
			_, err = tokenkeep.Open(ctx, cfg)
			require.Error(t, err, "only where the program permits it")
		})
	}

	// Not beside what is stored.
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	save(t, c, tokens)
	m.keyring.SetLocked(true)
	cfg := m.config()
	cfg.Order = []string{"keyring", "memory"}
	_, err = tokenkeep.Open(ctx, cfg)
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)

	// Nor while another process has the lock.
	m = newMachine(t)
	unlock, err := persistence.NewFileLock(filepath.Join(m.dir, "app.lock")).Lock(ctx)
	require.NoError(t, err)
	defer unlock()
	cfg = m.config()
	cfg.Order = []string{"keyring", "memory"}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = tokenkeep.Open(ended, cfg)
	require.ErrorIs(t, err, context.Canceled)
}

// A choice is data, for a program's own report.
func TestChoiceAsJSON(t *testing.T) {
	m := newMachine(t)
	cfg := m.permitting()
	ring := keyringtest.NewAbsent()
	cfg.Keyring = ring
	cfg.Passphrase = func(context.Context) ([]byte, error) { return nil, errors.New("cancelled") }
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	data, err := json.Marshal(choiceOf(t, c))
	require.NoError(t, err)
	var choice struct {
		InUse struct {
			Backend, Location string
			Encrypted         bool
		}
		By       string
		Refusals []struct{ Candidate, Class, Reason, Remedy string }
	}
	require.NoError(t, json.Unmarshal(data, &choice))
	require.Equal(t, "plaintext", choice.InUse.Backend)
	require.Equal(t, filepath.Join(m.dir, "app.plaintext.json"), choice.InUse.Location)
	require.Equal(t, "order", choice.By)
	require.Len(t, choice.Refusals, 2)
	require.Equal(t, "keyring", choice.Refusals[0].Candidate)
	require.Equal(t, "unavailable", choice.Refusals[0].Class)
	require.NotEmpty(t, choice.Refusals[0].Reason)
	require.Equal(t, "Call SetAbsent(false).", choice.Refusals[0].Remedy)
	require.Equal(t, "other", choice.Refusals[1].Class)
}
