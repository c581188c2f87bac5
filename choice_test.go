package tokenkeep_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func correctHorse(context.Context) ([]byte, error) { return []byte("correct horse"), nil }

func choiceOf(t *testing.T, c *persistence.Cache) tokenkeep.Choice {
	t.Helper()
	choice, ok := tokenkeep.ChoiceOf(c)
	require.True(t, ok)
	require.Equal(t, c.Describe(), choice.InUse)
	return choice
}

func TestChoiceOfTheUser(t *testing.T) {
	m := newMachine(t)
	cfg := m.config()
	cfg.Passphrase = correctHorse
	for _, store := range []string{"memory", "passphrase", "passphrase"} { // at last, what is stored agrees
		cfg.Store = store
		c, err := tokenkeep.Open(ctx, cfg)
		require.NoError(t, err)
		choice := choiceOf(t, c)
		require.Equal(t, tokenkeep.ByUser, choice.By)
		require.Empty(t, choice.Refusals)
		save(t, c, tokens)
	}
	cfg.Store = ""
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, tokenkeep.ByStored, choiceOf(t, c).By)
}

func TestChoiceOfAnotherCache(t *testing.T) {
	c, err := persistence.New(persistence.NewMemory())
	require.NoError(t, err)
	_, ok := tokenkeep.ChoiceOf(c)
	require.False(t, ok)
}

// What is said of a running cache stays true when it has to choose again.
func TestChoiceStaysTrue(t *testing.T) {
	m := newMachine(t)
	ring := keyringtest.NewAbsent()
	cfg := m.config()
	cfg.Keyring, cfg.AllowPlaintext = ring, true
	running, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, running, fromSSH)
	before := choiceOf(t, running)
	require.Equal(t, "plaintext", before.InUse.Backend)
	require.Equal(t, tokenkeep.ByOrder, before.By)
	require.Equal(t, []string{"keyring"}, refused(before.Refusals))

	ring.SetAbsent(false)
	cfg.Keyring = ring.Reopen()
	other, err := tokenkeep.Open(ctx, cfg) // trades up
	require.NoError(t, err)
	require.Equal(t, tokenkeep.ByOrder, choiceOf(t, other).By)
	require.Equal(t, before, choiceOf(t, running), "it has done nothing since")
	require.Equal(t, fromSSH, load(t, running))
	after := choiceOf(t, running)
	require.Equal(t, "keyring", after.InUse.KeySource)
	require.Equal(t, tokenkeep.ByStored, after.By)
	require.Empty(t, after.Refusals)
}

// logOf opens and uses a cache, and returns it and what was logged.
func logOf(t *testing.T, cfg tokenkeep.Config, level slog.Level) (*persistence.Cache, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	in := &rawClient{}
	require.NoError(t, c.Replace(ctx, in, cache.ReplaceHints{}))
	in.data = []byte(tokens)
	require.NoError(t, c.Export(ctx, in, cache.ExportHints{}))
	require.Equal(t, tokens, load(t, c))
	require.NotContains(t, log.String(), planted)
	return c, log
}

func TestChoiceIsLogged(t *testing.T) {
	m := newMachine(t)
	cfg := m.config()
	_, log := logOf(t, cfg, slog.LevelInfo)
	require.Empty(t, log.String(), "nothing to see to")
	_, log = logOf(t, cfg, slog.LevelDebug)
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "backend=encrypted")
	require.Contains(t, log.String(), "keySource=keyring")
	require.Contains(t, log.String(), "chosenBy=stored")

	m = newMachine(t)
	cfg = m.config()
	ring := keyringtest.NewAbsent()
	cfg.Keyring, cfg.AllowPlaintext = ring, true
	cfg.Passphrase = func(context.Context) ([]byte, error) { return nil, errors.New("cancelled") }
	c, log := logOf(t, cfg, slog.LevelInfo)
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	for _, part := range []string{"level=INFO", "backend=plaintext", "chosenBy=order", "encrypted=false",
		"refused.keyring.class=unavailable", `refused.keyring.reason="not available in this environment: no keyring program`, "refused.keyring.remedy=", "refused.passphrase.reason=", "cancelled", "refused.passphrase.remedy="} {
		require.Contains(t, log.String(), part)
	}

	// A warning in the same log says it all, and says it once. Where there is no warning,
	// the choice is logged.
	for _, passphrase := range []bool{false, true} {
		m := newMachine(t)
		cfg := m.config()
		cfg.Keyring, cfg.AllowPlaintext, cfg.Warn = keyringtest.NewAbsent(), !passphrase, nil
		if passphrase {
			cfg.Passphrase = func(context.Context) ([]byte, error) { return []byte("a passphrase"), nil }
		}
		_, log := logOf(t, cfg, slog.LevelInfo)
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.Equal(t, passphrase, strings.Contains(log.String(), "level=INFO"), log.String())
		require.Contains(t, log.String(), "no keyring program")
	}

	// Made again, it is logged again.
	log.Reset()
	ring.SetAbsent(false)
	_, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	for range 3 {
		require.Equal(t, tokens, load(t, c))
	}
	require.Empty(t, log.String(), "at Debug")
	require.Equal(t, tokenkeep.ByStored, choiceOf(t, c).By)
}

func TestOrder(t *testing.T) {
	for name, test := range map[string]struct {
		order   []string
		store   string
		locked  bool
		allow   bool
		source  string // "" for an error
		refused []string
	}{
		"the platform's":             {nil, "", false, true, "keyring", nil},
		"the other way round":        {[]string{"passphrase", "keyring"}, "", false, true, "passphrase", nil},
		"a passphrase only":          {[]string{"passphrase"}, "", false, true, "passphrase", nil},
		"a keyring only":             {[]string{"keyring"}, "", true, true, "", []string{"keyring"}},
		"no plaintext instead":       {[]string{"keyring", "plaintext"}, "", true, true, "", []string{"keyring", "plaintext"}},
		"plaintext, by a wish":       {[]string{"keyring", "plaintext"}, "plaintext", true, true, "plaintext", nil},
		"plaintext is not permitted": {[]string{"keyring", "plaintext"}, "", true, false, "", []string{"keyring"}},
		"a kernel":                   {[]string{"keyring", "kernel", "plaintext"}, "", true, true, "kernel", []string{"keyring"}},
		"memory at last":             {[]string{"keyring", "plaintext", "memory"}, "", true, true, "memory", []string{"keyring", "plaintext"}},
		"memory, not plaintext":      {[]string{"keyring", "memory"}, "plaintext", true, true, "", nil},
		"a wish within":              {[]string{"keyring", "passphrase"}, "passphrase", false, true, "passphrase", nil},
		"a wish beyond":              {[]string{"keyring"}, "passphrase", false, true, "", nil},
		"a wish for memory":          {[]string{"keyring"}, "memory", true, true, "memory", nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.keyring.SetLocked(test.locked)
			cfg := m.config()
			cfg.Order, cfg.Store, cfg.AllowPlaintext, cfg.Passphrase = test.order, test.store, test.allow, correctHorse
			if slices.Contains(test.order, "kernel") {
				cfg.Kernel = keyringtest.NewKernel() // not the machine's
			}
			c, err := tokenkeep.Open(ctx, cfg)
			if test.source == "" {
				require.Error(t, err)
				for _, r := range test.refused {
					require.ErrorContains(t, err, "\n  "+r+": ")
				}
				require.Equal(t, len(test.refused), strings.Count(err.Error(), "\n"))
				if len(test.refused) == 0 {
					require.ErrorIs(t, err, persistence.ErrUnavailable)
				}
				return
			}
			require.NoError(t, err)
			choice := choiceOf(t, c)
			require.Equal(t, test.source, choice.InUse.KeySource+map[bool]string{false: choice.InUse.Backend}[choice.InUse.Encrypted])
			require.ElementsMatch(t, test.refused, refused(choice.Refusals))
		})
	}
	t.Run("of elsewhere", func(t *testing.T) {
		m := newMachine(t)
		cfg := m.config()
		cfg.Order, cfg.Passphrase = []string{"dpapi", "passphrase"}, correctHorse
		c, err := tokenkeep.Open(ctx, cfg)
		require.NoError(t, err, "where DPAPI is not, it is refused like any other")
		require.Contains(t, []string{"dpapi", "passphrase"}, c.Describe().KeySource)
	})
	t.Run("the caller's slice", func(t *testing.T) {
		m := newMachine(t)
		cfg := m.config()
		cfg.Order = []string{"keyring"}
		c, err := tokenkeep.Open(ctx, cfg)
		require.NoError(t, err)
		cfg.Order[0] = "nonsense"
		save(t, c, tokens)
		require.Equal(t, tokens, load(t, c))
	})
}

// What was left out is not opened, where it has stored something, and nothing is
// started beside it.
func TestOrderAndWhatIsStored(t *testing.T) {
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	save(t, c, tokens)
	cfg := m.config()
	cfg.Order, cfg.Passphrase, cfg.AllowPlaintext = []string{"passphrase", "plaintext"}, correctHorse, true
	_, err = tokenkeep.Open(ctx, cfg)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "nothing less safe")
	require.Equal(t, []string{"app.enc"}, m.files())

	// What lies there in plaintext stays there.
	m = newMachine(t)
	cfg = m.config()
	cfg.Order, cfg.AllowPlaintext = []string{"plaintext"}, true
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, c, tokens)
	cfg.Order = []string{"keyring"}
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Empty(t, load(t, c))
	require.Equal(t, []string{"app.plaintext.json"}, m.files())
}
