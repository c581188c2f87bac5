package tokenkeep_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// stored is a machine with files of every kind, each with its key.
func stored(t *testing.T) (*machine, *keyringtest.Keyring) {
	m := newMachine(t)
	kernel := keyringtest.NewKernel()
	cfg := m.config()
	cfg.Kernel, cfg.Store = kernel, "kernel"
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, c, tokens)
	path := filepath.Join(m.dir, "app.enc")
	flip(t, path, -1)
	cfg.Store = ""
	c, err = tokenkeep.Open(ctx, cfg) // sets it aside at the first load
	require.NoError(t, err)
	require.Empty(t, load(t, c))
	cfg.Store = "keyring"
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, c, tokens)
	for name, content := range map[string]string{"app.plaintext.json": tokens, "app.plaintext.json.damaged-20260101T000000Z": tokens[1:],
		".app.enc.123.tmp": "half of a save"} {
		require.NoError(t, os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o600))
	}
	m.takeWarnings()
	require.Len(t, m.files(), 5)
	require.NotEmpty(t, m.keyring.Items())
	require.NotEmpty(t, kernel.Items())
	return m, kernel
}

func TestRemove(t *testing.T) {
	m, kernel := stored(t)
	other := filepath.Join(m.dir, "app-2.enc")
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	cfg := m.config() // permits no plaintext, and asks for something else
	cfg.Kernel, cfg.Store, cfg.Order = kernel, "memory", []string{"keyring"}
	require.NoError(t, tokenkeep.Remove(ctx, cfg))
	require.Equal(t, []string{"app-2.enc"}, m.files(), "another cache's file stays")
	require.Empty(t, m.keyring.Items())
	require.Empty(t, kernel.Items())
	require.Empty(t, m.takeWarnings())
	require.NoError(t, tokenkeep.Remove(ctx, cfg), "and again")

	cfg.Store, cfg.Order = "", nil
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Empty(t, load(t, c))
	save(t, c, tokens)
}

// A sign-out works where the key cannot be had. It says what it had to leave, and
// the next one takes that away.
func TestRemoveWithoutTheKey(t *testing.T) {
	for name, lock := range map[string]func(k *keyringtest.Keyring){
		"locked": func(k *keyringtest.Keyring) { k.SetLocked(true) },
		"absent": func(k *keyringtest.Keyring) { k.SetAbsent(true) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			c, err := tokenkeep.Open(ctx, m.config())
			require.NoError(t, err)
			save(t, c, tokens)
			lock(m.keyring)
			require.NoError(t, tokenkeep.Remove(ctx, m.config()))
			require.Empty(t, m.files())
			warnings := m.takeWarnings()
			require.Len(t, warnings, 1)
			for item := range m.keyring.Items() {
				require.Contains(t, warnings[0].Message, strings.TrimPrefix(item.User, "tokenkeep key "))
				require.Contains(t, warnings[0].Remedy, item.Service)
			}
			m.keyring.SetLocked(false)
			m.keyring.SetAbsent(false)
			require.Len(t, m.keyring.Items(), 1)
			require.NoError(t, tokenkeep.Remove(ctx, m.config()))
			require.Empty(t, m.keyring.Items())
			require.Empty(t, m.takeWarnings())
		})
	}
}

// A keyring that never had the key is not said to keep one: in a container with no
// keyring, over SSH where it is locked, where it is full.
func TestRemoveSaysNothingOfAKeyThatWasNeverStored(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(k *keyringtest.Keyring)
		says bool
	}{
		"absent":                        {set: func(k *keyringtest.Keyring) { k.SetAbsent(true) }},
		"locked":                        {set: func(k *keyringtest.Keyring) { k.SetLocked(true) }},
		"full":                          {set: func(k *keyringtest.Keyring) { k.SetFull(true) }},
		"does not answer":               {set: func(k *keyringtest.Keyring) { k.SetError(keyring.NoAnswer) }},
		"control: gone before Set ends": {func(k *keyringtest.Keyring) { k.CrashAt(2, true) }, true},
		"control: gone after Set":       {func(k *keyringtest.Keyring) { k.VanishAfter(2) }, true},
	} {
		for _, kernel := range []string{"and the kernel's has it", "and nothing works"} {
			t.Run(name+" "+kernel, func(t *testing.T) {
				m := newMachine(t)
				cfg := m.config()
				cfg.Kernel = keyringtest.NewAbsent()
				if kernel == "and the kernel's has it" {
					cfg.Kernel = keyringtest.NewKernel()
				}
				c.set(m.keyring)
				cache, err := tokenkeep.Open(ctx, cfg)
				if kernel == "and the kernel's has it" {
					require.NoError(t, err)
					save(t, cache, tokens)
				} else {
					require.Error(t, err)
				}
				m.takeWarnings()
				require.NoError(t, tokenkeep.Remove(ctx, cfg))
				warnings := m.takeWarnings()
				if !c.says {
					require.Empty(t, warnings)
					require.Empty(t, m.keyring.Items())
					return
				}
				require.Len(t, warnings, 1)
				require.Len(t, m.keyring.Items(), 1)
			})
		}
	}
}

// Nobody is asked for a passphrase, and what nobody can open goes too.
func TestRemoveAsksNobody(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, m *machine, cfg *tokenkeep.Config){
		"a passphrase": func(t *testing.T, m *machine, cfg *tokenkeep.Config) {
			cfg.Store, cfg.Passphrase = "passphrase", correctHorse
		},
		"a program's key": func(t *testing.T, m *machine, cfg *tokenkeep.Config) {
			cfg.Key = encrypted.Raw(make([]byte, 32))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			cfg := m.config()
			prepare(t, m, &cfg)
			c, err := tokenkeep.Open(ctx, cfg)
			require.NoError(t, err)
			save(t, c, tokens)
			cfg = m.config()
			cfg.Key = encrypted.Env("TOKENKEEP_TEST_NO_KEY")
			cfg.Passphrase = func(context.Context) ([]byte, error) { t.Error("asked"); return nil, nil }
			require.NoError(t, tokenkeep.Remove(ctx, cfg))
			require.Empty(t, m.files())
			require.Empty(t, m.takeWarnings())
		})
	}
	for _, content := range []string{"", "nonsense", "tokenkeep-encrypted/2\nof a newer program\n\n"} {
		m := newMachine(t)
		require.NoError(t, os.MkdirAll(m.dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(m.dir, "app.enc"), []byte(content), 0o600))
		require.NoError(t, tokenkeep.Remove(ctx, m.config()))
		require.Empty(t, m.files(), "%q", content)
	}
}

func TestRemoveWhereNothingIs(t *testing.T) {
	m := newMachine(t)
	require.NoError(t, tokenkeep.Remove(ctx, m.config()))
	require.NoDirExists(t, m.dir, "no folder is made")
	require.Error(t, tokenkeep.Remove(ctx, tokenkeep.Config{}))

	// A busy lock is waited for.
	m, _ = stored(t)
	unlock, err := persistence.NewFileLock(filepath.Join(m.dir, "app.lock")).Lock(ctx)
	require.NoError(t, err)
	bounded, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	before := m.files()
	require.ErrorIs(t, tokenkeep.Remove(bounded, m.config()), persistence.ErrLockTimeout)
	require.Equal(t, before, m.files())
	require.NoError(t, unlock())

	// What cannot be removed is an error, and the rest goes.
	if runtime.GOOS != "windows" {
		require.NoError(t, os.Remove(filepath.Join(m.dir, "app.plaintext.json")))
		require.NoError(t, os.MkdirAll(filepath.Join(m.dir, "app.plaintext.json", "sub"), 0o700))
		require.ErrorContains(t, tokenkeep.Remove(ctx, m.config()), "app.plaintext.json")
		require.Equal(t, []string{"app.plaintext.json"}, m.files())
	}
}
