package tokenkeep_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
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

// row is a row of the table in docs/choice.md.
type row struct{ who, keyring, kernel, stored, program, uses, signIn, says string }

// rows returns the rows of the table.
func rows(t *testing.T) (all []row) {
	page, err := os.ReadFile("docs/choice.md")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(page), "\n|---")
	_, table, _ = strings.Cut(table, "\n")
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 10 {
			break
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		all = append(all, row{cells[1], cells[2], cells[3], cells[4], cells[5], cells[6], cells[7], cells[8]})
	}
	require.Greater(t, len(all), 50)
	return all
}

// situation puts a keyring into the state that the table names.
func situation(t *testing.T, k *keyringtest.Keyring, state string) keyring.Keyring {
	switch state {
	case "works":
	case "locked":
		k.SetLocked(true)
	case "none":
		k.SetError(keyring.NoBus)
	case "elsewhere":
		k.SetError(keyring.NoSession)
	case "refuses":
		k.SetError(keyring.Denied)
	case "full":
		k.SetFull(true)
	case "reset":
		k.Clear()
	case "hangs":
		return hanging{k, keyringtest.NewHanging(time.Millisecond)}
	default:
		t.Fatalf("the table has a state that is unknown: %q", state)
	}
	return k
}

// hanging has the items of a keyring and answers nothing.
type hanging struct {
	*keyringtest.Keyring
	hangs *keyringtest.Keyring
}

func (h hanging) Get(ctx context.Context, service, user string) (string, error) {
	return h.hangs.Get(ctx, service, user)
}

func (h hanging) Set(ctx context.Context, service, user, secret string) error {
	return h.hangs.Set(ctx, service, user, secret)
}

func TestChoiceTable(t *testing.T) {
	tokenkeep.WithoutDPAPI(t)
	for _, r := range rows(t) {
		t.Run(strings.Join([]string{r.who, r.keyring, r.kernel, r.stored, r.program}, "/"), func(t *testing.T) {
			if r.kernel == "another's" {
				return // see TestKernelKeyOfAnotherNamespace
			}
			if r.kernel == "restarted" {
				return // see TestKernelSignInAfterARestart
			}
			if r.stored == "kernel" && r.kernel == "reset" && runtime.GOOS != "linux" {
				r.uses = "error: unavailable" // only Linux tells whether a key of its kernel is gone
			}
			require.Empty(t, r.problem(t))
		})
	}
}

// The test fails where a row says something else.
func TestChoiceTableIsChecked(t *testing.T) {
	tokenkeep.WithoutDPAPI(t)
	for _, wrong := range []row{
		{"SSH", "locked", "refuses", "nothing", "plaintext", "plaintext", "new", "warning"},
		{"SSH", "locked", "works", "nothing", "–", "kernel", "new", "–"},
		{"SSH", "locked", "works", "keyring", "–", "kernel", "new", "warning"},
		{"SSH", "locked", "works", "plaintext", "plaintext", "kernel", "moved", "warning"},
		{"cron", "none", "works", "kernel", "–", "kernel", "ended", "log"},
		{"container", "none", "refuses", "plaintext", "plaintext", "plaintext", "kept", "warning"},
		{"container", "none", "works", "key", "missing key", "kernel", "ended", "warning"},
	} {
		require.NotEmpty(t, wrong.problem(t), "%+v", wrong)
	}
}

// problem runs the row and says what is otherwise.
func (r row) problem(t *testing.T) string {
	m := newMachine(t)
	kernel := keyringtest.NewKernel()
	variable := "TOKENKEEP_TEST_KEY"
	t.Setenv(variable, strings.Repeat("A", 43))
	if r.stored != "nothing" {
		cfg := m.config()
		cfg.Kernel, cfg.Store, cfg.Passphrase, cfg.Key, cfg.AllowPlaintext = kernel, r.stored, correctHorse, encrypted.Env(variable), true
		c, err := tokenkeep.Open(ctx, cfg)
		require.NoError(t, err)
		save(t, c, tokens)
		m.takeWarnings()
	}

	cfg := m.config()
	log := new(bytes.Buffer)
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	cfg.Keyring, cfg.Kernel = situation(t, m.keyring, r.keyring), situation(t, kernel, r.kernel)
	for _, has := range strings.Split(r.program, ", ") {
		switch has {
		case "–":
		case "plaintext":
			cfg.AllowPlaintext = true
		case "passphrase":
			cfg.Passphrase = correctHorse
		case "memory":
			cfg.Order = []string{"key", "keyring", "passphrase", "kernel", "plaintext", "memory"}
		case "key":
			cfg.Key = encrypted.Env(variable)
		case "missing key":
			cfg.Key = encrypted.Env("TOKENKEEP_TEST_NO_KEY")
		case "other key":
			other := variable + "_2"
			t.Setenv(other, strings.Repeat("A", 42)+"E")
			cfg.Key = encrypted.Env(other)
		case "old key":
			cfg.OldKey = encrypted.Env(variable)
		default:
			t.Fatalf("the table has a program that is unknown: %q", has)
		}
	}

	before := m.files()
	c, err := tokenkeep.Open(ctx, cfg)
	if class, fails := strings.CutPrefix(r.uses, "error: "); fails {
		switch {
		case err == nil:
			return "it opens"
		case classOf(err, class) != class:
			return "it fails with the class " + classOf(err, class) + ": " + err.Error()
		case !slices.Equal(before, m.files()):
			return "an error has changed the files"
		case len(m.takeWarnings()) != 0:
			return "an error and a warning"
		}
		return ""
	}
	if err != nil {
		return err.Error()
	}
	d := c.Describe()
	uses := d.KeySource
	if uses == "" {
		uses = d.Backend
	}
	if uses == "env" {
		uses = "key"
	}
	if uses != r.uses {
		return "it uses " + uses
	}

	data := load(t, c)
	files := m.files()
	signIn := "new"
	switch {
	case data == tokens && slices.Equal(before, files):
		signIn = "kept"
	case data == tokens:
		signIn = "moved"
	case data != "":
		return "something else is stored"
	case slices.ContainsFunc(files, func(name string) bool { return strings.Contains(name, ".damaged-") }):
		signIn = "ended"
	case r.stored != "nothing" && slices.Equal(before, files):
		signIn = "left"
	}
	if signIn != r.signIn {
		return "the sign-in is " + signIn
	}

	warnings := m.takeWarnings()
	var says []string
	if strings.Contains(log.String(), "has ended. Sign in again.") {
		says = append(says, "log")
	}
	if len(warnings) > 0 {
		says = append(says, "warning")
	}
	if len(says) == 0 {
		says = []string{"–"}
	}
	if got := strings.Join(says, ", "); got != r.says {
		return "it says: " + got
	}
	for _, w := range warnings {
		if text := w.String(); strings.Contains(text, "Config.") || strings.Contains(text, planted) {
			return "the user is told: " + text
		}
	}
	if r.uses == "kernel" && signIn == "new" {
		if text := warnings[0].String(); !strings.Contains(text, "three days") || !strings.Contains(text, "keyring: ") {
			return "the warning does not say for how long, and why: " + text
		}
	}

	// Whatever it was, the next session of the same kind finds it.
	save(t, c, fromSSH)
	log.Reset()
	again, err := tokenkeep.Open(ctx, cfg)
	switch {
	case err != nil:
		return "the next one: " + err.Error()
	case r.uses != "memory" && load(t, again) != fromSSH:
		return "the next one finds something else"
	case r.signIn != "left" && len(m.takeWarnings()) > 0 && r.uses != "memory":
		return "the next one warns of what is no news"
	case log.Len() > 0 && r.uses != "memory":
		return "the next one logs what is no news: " + log.String()
	}
	return ""
}

// classOf returns the class of an error, or that one if it is a class of what
// the error says of any candidate.
func classOf(err error, class string) string {
	for _, e := range flatten(err) {
		if persistence.ClassOf(e) == class {
			return class
		}
	}
	return persistence.ClassOf(err)
}

func flatten(err error) []error {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		return many.Unwrap()
	}
	return []error{err}
}

func TestKernelOfTheMachineIsLeftAlone(t *testing.T) {
	m := newMachine(t)
	m.keyring.SetLocked(true)
	cfg := m.config() // sets Keyring, as the tests of programs do
	_, err := tokenkeep.Open(ctx, cfg)
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.NotContains(t, err.Error(), "kernel")
	cfg.Store = "kernel"
	_, err = tokenkeep.Open(ctx, cfg)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Empty(t, m.files())

	// Nor is it asked for a file that names it.
	cfg.Store, cfg.Kernel = "", keyringtest.NewKernel()
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, c, tokens)
	cfg.Kernel = nil
	_, err = tokenkeep.Open(ctx, cfg)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "kernel's keyring, which this program does not use")
	require.Equal(t, []string{"app.enc"}, m.files())
}

// A program that gives the kernel's keyring as its keyring uses the candidate
// kernel, and leaves a file alone whose key is in the system's keyring.
func TestKernelAsTheKeyring(t *testing.T) {
	for _, order := range [][]string{nil, {"keyring"}, {"kernel"}, {"keyring", "passphrase"}} {
		for _, store := range []string{"", "keyring", "kernel"} {
			m := newMachine(t)
			desktop, err := tokenkeep.Open(ctx, m.config())
			require.NoError(t, err)
			save(t, desktop, fromDesktop)
			cfg := m.config()
			cfg.Keyring, cfg.Order, cfg.Store = keyringtest.NewKernel(), order, store
			_, err = tokenkeep.Open(ctx, cfg)
			require.Error(t, err)
			require.Equal(t, []string{"app.enc"}, m.files(), "the desktop's sign-in is not set aside")
			require.Equal(t, fromDesktop, load(t, desktop))
			require.NoError(t, desktop.Delete(ctx))

			c, err := tokenkeep.Open(ctx, cfg)
			require.NoError(t, err)
			save(t, c, tokens)
			require.Equal(t, "kernel", c.Describe().KeySource)
			if order != nil {
				require.Contains(t, []string{"keyring", "kernel"}, order[0], "the caller's slice is as it was")
			}
			header, err := os.ReadFile(filepath.Join(m.dir, "app.enc"))
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(keyLine(header), "key kernel "), keyLine(header))
			if runtime.GOOS == "linux" {
				require.Contains(t, keyLine(header), " boot=")
				require.Contains(t, keyLine(header), " userns=")
			}
			_, err = tokenkeep.Open(ctx, m.config()) // and back at the desktop
			require.ErrorIs(t, err, persistence.ErrUnavailable)
			require.Equal(t, tokens, load(t, c))
		}
	}
}
