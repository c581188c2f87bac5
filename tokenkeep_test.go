package tokenkeep_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
	vectors "github.com/tokenkeep/tokenkeep/testdata/encrypted"
)

const (
	planted = "pl4nted-s3cret"
	tokens  = `{"RefreshToken":{"k":{"secret":"` + planted + `"}}}`
)

var ctx = context.Background()

// machine is one user's machine: a folder, a keyring and what was warned of.
type machine struct {
	t        *testing.T
	dir      string
	keyring  *keyringtest.Keyring
	mu       sync.Mutex
	warnings []fallback.Warning
}

// newMachine returns one that has no DPAPI, and differs from system to system as
// little as can be.
func newMachine(t *testing.T) *machine {
	tokenkeep.WithoutDPAPI(t)
	return newMachineOfTheSystem(t)
}

func newMachineOfTheSystem(t *testing.T) *machine {
	return &machine{t: t, dir: filepath.Join(t.TempDir(), "tokens"), keyring: keyringtest.New()}
}

func (m *machine) config() tokenkeep.Config {
	return tokenkeep.Config{Name: "app", Dir: m.dir, Keyring: m.keyring, Logger: slog.New(slog.DiscardHandler),
		Warn: func(w fallback.Warning) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.warnings = append(m.warnings, w)
			if problem := problemOf(w); problem != "" {
				m.t.Error(problem)
			}
		}}
}

// problemOf says what is wrong with the form of a warning.
func problemOf(w fallback.Warning) string {
	for name, text := range map[string]string{"Message": w.Message, "Reason": w.Reason, "Remedy": w.Remedy} {
		first, _ := utf8.DecodeRuneInString(text)
		switch {
		case text == "" && name != "Message":
		case text == "", unicode.IsLower(first), !strings.HasSuffix(text, ".") && (name != "Remedy" || !strings.Contains(text, " with: ")), strings.HasSuffix(text, ".."), strings.Contains(text, "\n"):
			return fmt.Sprintf("the warning's %s is not made of sentences: %q", name, text)
		}
	}
	if !filepath.IsAbs(w.Location) || strings.Contains(w.Backend, " ") {
		return fmt.Sprintf("the warning names no place: %+v", w)
	}
	return ""
}

func TestWarningsThatAreNotSentences(t *testing.T) {
	good := fallback.Warning{Location: t.TempDir(), Message: "It is so."}
	require.Empty(t, problemOf(good))
	for _, bad := range []fallback.Warning{{}, {Message: "It is so."}, {Location: good.Location},
		{Location: good.Location, Message: "it is so."}, {Location: good.Location, Message: "It is so"}, {Location: good.Location, Message: "It is so.."},
		{Location: good.Location, Message: "It is so.", Reason: "because"}, {Location: good.Location, Message: "It is so.", Remedy: "Do\nthat."},
		{Location: good.Location, Message: "It is so.", Backend: "two words"}} {
		require.NotEmpty(t, problemOf(bad), "%+v", bad)
	}
}

// save stores tokens as a program does, with its own Cache.
func save(t *testing.T, c *persistence.Cache, data string) {
	t.Helper()
	require.NoError(t, c.Update(ctx, func([]byte) ([]byte, error) { return []byte(data), nil }))
}

func load(t *testing.T, c *persistence.Cache) string {
	t.Helper()
	data, err := c.Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		return ""
	}
	require.NoError(t, err)
	return string(data)
}

// files returns the names of the data files, without those of locks.
func (m *machine) files() []string {
	var names []string
	entries, err := os.ReadDir(m.dir)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(m.t, err)
	}
	for _, e := range entries {
		if !strings.Contains(e.Name(), ".lock") {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestChoice is the whole matrix: what the keyring does now, what is stored,
// and whether plaintext is allowed.
func TestChoice(t *testing.T) {
	t.Run("without DPAPI", func(t *testing.T) { tokenkeep.WithoutDPAPI(t); testChoice(t, false) })
	if runtime.GOOS == "windows" {
		t.Run("with DPAPI", func(t *testing.T) { testChoice(t, true) })
	}
}

func testChoice(t *testing.T, dpapi bool) {
	const (
		encryptedFile = "app.enc"
		plaintextFile = "app.plaintext.json"
	)
	passphrase := func(context.Context) ([]byte, error) { return []byte("correct horse"), nil }
	for _, c := range []struct {
		keyring    string // "ok", "locked", "absent"
		stored     string // "", "encrypted", "plaintext"
		plaintext  bool   // AllowPlaintext
		passphrase bool

		backend string // "" for an error
		source  string
		class   error
		warned  bool
		files   []string
	}{
		{keyring: "ok", backend: "encrypted", source: "keyring"},
		{keyring: "ok", plaintext: true, passphrase: true, backend: "encrypted", source: "keyring"},
		{keyring: "ok", stored: "encrypted", backend: "encrypted", source: "keyring", files: []string{encryptedFile}},
		{keyring: "ok", stored: "encrypted", plaintext: true, backend: "encrypted", source: "keyring", files: []string{encryptedFile}},
		{keyring: "ok", stored: "plaintext", backend: "encrypted", source: "keyring", warned: true, files: []string{plaintextFile}},
		{keyring: "ok", stored: "plaintext", plaintext: true, backend: "encrypted", source: "keyring", warned: true, files: []string{encryptedFile}},

		{keyring: "locked", class: persistence.ErrKeyringLocked},
		{keyring: "locked", passphrase: true, backend: "encrypted", source: "passphrase"},
		{keyring: "locked", plaintext: true, class: persistence.ErrKeyringLocked},
		{keyring: "locked", stored: "encrypted", class: persistence.ErrKeyringLocked, files: []string{encryptedFile}},
		{keyring: "locked", stored: "encrypted", plaintext: true, passphrase: true, class: persistence.ErrKeyringLocked, files: []string{encryptedFile}},
		{keyring: "locked", stored: "plaintext", class: persistence.ErrKeyringLocked, files: []string{plaintextFile}},
		{keyring: "locked", stored: "plaintext", plaintext: true, backend: "plaintext", files: []string{plaintextFile}},
		{keyring: "locked", stored: "plaintext", plaintext: true, passphrase: true, backend: "encrypted", source: "passphrase", warned: true, files: []string{encryptedFile}},

		{keyring: "absent", class: persistence.ErrUnavailable},
		{keyring: "absent", passphrase: true, backend: "encrypted", source: "passphrase"},
		{keyring: "absent", plaintext: true, backend: "plaintext", warned: true},
		{keyring: "absent", stored: "encrypted", class: persistence.ErrUnavailable, files: []string{encryptedFile}},
		{keyring: "absent", stored: "encrypted", plaintext: true, passphrase: true, class: persistence.ErrUnavailable, files: []string{encryptedFile}},
		{keyring: "absent", stored: "plaintext", class: persistence.ErrUnavailable, files: []string{plaintextFile}},
		{keyring: "absent", stored: "plaintext", plaintext: true, backend: "plaintext", files: []string{plaintextFile}},
	} {
		if dpapi && c.keyring != "ok" && c.stored != "encrypted" { // it comes to nothing less safe
			c.backend, c.source, c.class, c.warned, c.files = "encrypted", "dpapi", nil, c.stored != "", nil
			if c.stored != "" {
				c.files = []string{map[bool]string{true: encryptedFile, false: plaintextFile}[c.plaintext]}
			}
		}
		name := strings.Join([]string{"keyring " + c.keyring, "stored " + c.stored, map[bool]string{true: "plaintext allowed"}[c.plaintext], map[bool]string{true: "passphrase"}[c.passphrase]}, ", ")
		// Plaintext is neither read nor moved where it is not permitted.
		want := tokens
		if c.stored == "plaintext" && !c.plaintext {
			want = ""
		}
		t.Run(name, func(t *testing.T) {
			m := newMachineOfTheSystem(t)
			if c.stored != "" {
				was := m.config()
				if c.stored == "plaintext" {
					was.Store, was.AllowPlaintext = "plaintext", true
				}
				first, err := tokenkeep.Open(ctx, was)
				require.NoError(t, err)
				save(t, first, tokens)
				m.warnings = nil
			}
			m.keyring.SetLocked(c.keyring == "locked")
			m.keyring.SetAbsent(c.keyring == "absent")
			cfg := m.config()
			cfg.AllowPlaintext = c.plaintext
			if c.passphrase {
				cfg.Passphrase = passphrase
			}
			before := m.files()
			opened, err := tokenkeep.Open(ctx, cfg)
			if c.backend == "" {
				require.ErrorIs(t, err, c.class)
				require.NotContains(t, err.Error(), planted)
				require.Equal(t, before, m.files(), "nothing was touched")
			} else {
				require.NoError(t, err)
				d := opened.Describe()
				require.Equal(t, c.backend, d.Backend)
				require.Equal(t, c.source, d.KeySource)
				require.Equal(t, c.backend == "encrypted", d.Encrypted)
				choice, ok := tokenkeep.ChoiceOf(opened)
				require.True(t, ok)
				require.Equal(t, d, choice.InUse)
				if c.stored == "encrypted" {
					require.Equal(t, tokenkeep.ByStored, choice.By)
					require.Empty(t, choice.Refusals)
				} else {
					require.Equal(t, tokenkeep.ByOrder, choice.By)
					require.Equal(t, preferredTo(cmp.Or(c.source, c.backend), dpapi, c.passphrase), refused(choice.Refusals))
				}
				if c.stored != "" {
					require.Equal(t, want, load(t, opened))
				}
			}
			require.Equal(t, c.warned, len(m.warnings) == 1, "%v", m.warnings)
			require.Equal(t, c.files, m.files())

			// Once the keyring works again, what was stored is there again.
			m.keyring.SetLocked(false)
			m.keyring.SetAbsent(false)
			if c.stored != "" {
				again, err := tokenkeep.Open(ctx, cfg)
				require.NoError(t, err)
				require.Equal(t, want, load(t, again))
				require.True(t, again.Describe().Encrypted)
				if want == "" {
					require.Equal(t, []string{plaintextFile}, m.files())
				} else {
					require.Equal(t, []string{encryptedFile}, m.files())
				}
			}
		})
	}
}

// preferredTo returns the candidates that come before that one.
func preferredTo(candidate string, dpapi, passphrase bool) []string {
	all := []string{"keyring", "dpapi", "passphrase", "plaintext"}
	all = all[:slices.Index(all, candidate)]
	return slices.DeleteFunc(all, func(name string) bool { return name == "dpapi" && !dpapi || name == "passphrase" && !passphrase })
}

// refused returns the candidates, and sees that each says why.
func refused(refusals []fallback.Refusal) []string {
	names := []string{}
	for _, r := range refusals {
		if r.Reason() == "" || r.Remedy() == "" {
			return []string{r.Candidate + " does not explain itself"}
		}
		names = append(names, r.Candidate)
	}
	return names
}

func TestNothingPlainOnDisk(t *testing.T) {
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	save(t, c, tokens)
	require.NoError(t, filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		require.NotContains(t, string(data), planted, path)
		info, statErr := d.Info()
		require.NoError(t, statErr)
		if runtime.GOOS != "windows" {
			require.Zero(t, info.Mode()&0o077, path)
		}
		return err
	}))
}

func TestSafestIsReportedWithEveryRefusal(t *testing.T) {
	m := newMachine(t)
	m.keyring.SetAbsent(true)
	_, err := tokenkeep.Open(ctx, m.config())
	var none *fallback.NoneError
	require.ErrorAs(t, err, &none)
	var names []string
	for _, r := range none.Refusals {
		names = append(names, r.Candidate)
		require.NotEmpty(t, r.Reason(), r.Candidate)
		require.NotEmpty(t, r.Remedy(), r.Candidate)
		require.Contains(t, err.Error(), r.Remedy())
	}
	require.Equal(t, []string{"keyring"}, names, "what the program has not enabled is not its user's business")
	require.NotContains(t, err.Error(), "Config.")

	cfg := m.config()
	cfg.Passphrase, cfg.Kernel = func(context.Context) ([]byte, error) { return nil, errors.New("cancelled") }, keyringtest.NewAbsent()
	_, err = tokenkeep.Open(ctx, cfg)
	require.ErrorAs(t, err, &none)
	require.Len(t, none.Refusals, 3, "keyring, passphrase and kernel")
	require.ErrorContains(t, err, "cancelled")
	require.Empty(t, m.files())
}

func TestWishOnlyNarrows(t *testing.T) {
	for _, c := range []struct{ store, backend string }{
		{"", "encrypted"}, {"keyring", "encrypted"}, {"memory", "memory"}, {"plaintext", ""}, {"passphrase", ""}, {"nonsense", ""},
		{"dpapi", ""},
	} {
		m := newMachine(t)
		cfg := m.config()
		cfg.Store = c.store
		opened, err := tokenkeep.Open(ctx, cfg)
		if c.backend == "" {
			require.Error(t, err, c.store)
			continue
		}
		require.NoError(t, err, c.store)
		require.Equal(t, c.backend, opened.Describe().Backend)
		save(t, opened, tokens)
		require.Equal(t, tokens, load(t, opened))

		// What is stored one way is not left behind for another one.
		cfg.Store, cfg.AllowPlaintext = "plaintext", true
		_, err = tokenkeep.Open(ctx, cfg)
		if c.backend == "encrypted" {
			require.ErrorContains(t, err, "nothing less safe")
			require.Equal(t, []string{"app.enc"}, m.files())
		} else {
			require.NoError(t, err)
			require.Empty(t, m.files(), "memory keeps nothing")
		}
	}
}

func TestDPAPIIsForWindows(t *testing.T) {
	m := newMachineOfTheSystem(t)
	cfg := m.config()
	cfg.Store = "dpapi"
	opened, err := tokenkeep.Open(ctx, cfg)
	if runtime.GOOS != "windows" {
		require.ErrorIs(t, err, persistence.ErrUnavailable)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "Windows")
		require.NoDirExists(t, m.dir)
		return
	}
	require.NoError(t, err)
	require.Equal(t, "dpapi", opened.Describe().KeySource)
	save(t, opened, tokens)
	require.Empty(t, m.keyring.Calls())
	// What DPAPI keeps is found again without the wish, and whatever the keyring does.
	for _, locked := range []bool{false, true} {
		m.keyring.SetLocked(locked)
		again, err := tokenkeep.Open(ctx, m.config())
		require.NoError(t, err)
		require.Equal(t, tokens, load(t, again))
		require.Equal(t, "dpapi", again.Describe().KeySource)
	}
}

// A file whose key another user's DPAPI encrypted, or a Windows machine's where
// this is none, is left alone.
func TestFileOfAnotherUsersDPAPI(t *testing.T) {
	vector, err := vectors.Files.ReadFile("ok-dpapi.vec")
	require.NoError(t, err)
	_, file, _ := bytes.Cut(vector, []byte("\n\n"))
	m := newMachineOfTheSystem(t)
	require.NoError(t, os.MkdirAll(m.dir, 0o700))
	path := filepath.Join(m.dir, "app.enc")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	cfg := m.config()
	cfg.AllowPlaintext = true
	_, err = tokenkeep.Open(ctx, cfg)
	if runtime.GOOS == "windows" {
		require.ErrorIs(t, err, persistence.ErrWrongKey)
		require.ErrorContains(t, err, "as the user")
	} else {
		require.ErrorIs(t, err, persistence.ErrUnavailable)
		require.ErrorContains(t, err, "on Windows")
	}
	require.Equal(t, []string{"app.enc"}, m.files())
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, file, after)
	require.Empty(t, m.warnings)
}

func TestBadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, cfg := range map[string]tokenkeep.Config{
		"no name":                  {},
		"name with a slash":        {Name: "a/b"},
		"name with a backslash":    {Name: `a\b`},
		"name of the parent":       {Name: ".."},
		"name in capitals":         {Name: "App"},
		"name is too long":         {Name: strings.Repeat("a", 65)},
		"name of a device":         {Name: "con"},
		"name of a device and dot": {Name: "nul.x"},
		"unknown store":            {Name: "app", Store: "floppy"},
		"order of nothing":         {Name: "app", Order: []string{}},
		"order of the unknown":     {Name: "app", Order: []string{"keyring", "floppy"}},
		"order with memory first":  {Name: "app", Order: []string{"memory", "keyring"}},
		"order of what is missing": {Name: "app", Order: []string{"key", "passphrase", "plaintext"}},
		"a passphrase as the key":  {Name: "app", Key: encrypted.Passphrase(correctHorse, nil)},
		"an old key and no new":    {Name: "app", OldKey: encrypted.Raw(make([]byte, 32))},
		"a key of no bytes":        {Name: "app", Key: encrypted.Raw(nil)},
		"a variable of no name":    {Name: "app", Key: encrypted.Env("")},
		"an old key of 16 bytes":   {Name: "app", Key: encrypted.Raw(make([]byte, 32)), OldKey: encrypted.Raw(make([]byte, 16))},
		"order with one twice":     {Name: "app", Order: []string{"keyring", "keyring"}},
		"order of plaintext first": {Name: "app", Order: []string{"plaintext", "keyring"}, AllowPlaintext: true},
		"folder is a file":         {Name: "app", Dir: file},
		"folder cannot be made":    {Name: "app", Dir: filepath.Join(file, "sub")},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Keyring = keyringtest.New()
			if cfg.Dir == "" {
				cfg.Dir = t.TempDir()
			}
			_, err := tokenkeep.Open(ctx, cfg)
			var e *persistence.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "open", e.Op)
			require.NotEmpty(t, e.Remedy)
		})
	}
}

func TestDamageIsSetAside(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, m *machine, path string){
		"header": func(t *testing.T, m *machine, path string) { flip(t, path, 3) },
		"body":   func(t *testing.T, m *machine, path string) { flip(t, path, -1) },
		"cut":    func(t *testing.T, m *machine, path string) { require.NoError(t, os.Truncate(path, 100)) },
		"key is gone": func(t *testing.T, m *machine, path string) {
			m.keyring = keyringtest.New()
		},
	} {
		for _, running := range []bool{false, true} {
			if name == "key is gone" && running {
				continue // a running program has the key
			}
			t.Run(name+map[bool]string{true: ", met by a running program"}[running], func(t *testing.T) {
				m := newMachine(t)
				c, err := tokenkeep.Open(ctx, m.config())
				require.NoError(t, err)
				save(t, c, tokens)
				path := filepath.Join(m.dir, "app.enc")
				harm(t, m, path)
				harmed, err := os.ReadFile(path)
				require.NoError(t, err)
				if !running {
					c, err = tokenkeep.Open(ctx, m.config())
					require.NoError(t, err)
				}
				in := &rawClient{}
				require.NoError(t, c.Replace(ctx, in, cache.ReplaceHints{}))
				require.Equal(t, "{}", string(in.data), "the user signs in again")
				require.Len(t, m.warnings, 1)
				require.NotContains(t, m.warnings[0].String(), planted)

				files := m.files()
				require.Len(t, files, 1, "kept, and nothing in its place yet")
				require.Contains(t, m.warnings[0].Remedy, files[0])
				kept, err := os.ReadFile(filepath.Join(m.dir, files[0]))
				require.NoError(t, err)
				require.Equal(t, harmed, kept)

				in.data = []byte(tokens)
				require.NoError(t, c.Export(ctx, in, cache.ExportHints{}))
				again, err := tokenkeep.Open(ctx, m.config())
				require.NoError(t, err)
				require.Equal(t, tokens, load(t, again))
			})
		}
	}
}

func TestTornPlaintextIsSetAside(t *testing.T) {
	for _, keyringWorks := range []bool{false, true} {
		m := newMachine(t)
		m.keyring.SetAbsent(!keyringWorks)
		require.NoError(t, os.MkdirAll(m.dir, 0o700))
		torn := []byte(tokens[:len(tokens)-3])
		require.NoError(t, os.WriteFile(filepath.Join(m.dir, "app.plaintext.json"), torn, 0o600))
		cfg := m.config()
		cfg.AllowPlaintext = true
		c, err := tokenkeep.Open(ctx, cfg)
		require.NoError(t, err)
		in := &rawClient{}
		require.NoError(t, c.Replace(ctx, in, cache.ReplaceHints{}))
		require.Equal(t, "{}", string(in.data))
		files := m.files()
		require.Len(t, files, 1)
		kept, err := os.ReadFile(filepath.Join(m.dir, files[0]))
		require.NoError(t, err)
		require.Equal(t, torn, kept)
		require.Contains(t, m.warnings[len(m.warnings)-1].Remedy, files[0])
		in.data = []byte(tokens)
		require.NoError(t, c.Export(ctx, in, cache.ExportHints{}))
		require.Equal(t, tokens, load(t, c))
	}
}

// However often files are damaged, the newest five are kept, with their keys, and
// each time the user is told where.
func TestSetAsideIsBounded(t *testing.T) {
	for _, name := range []string{"app.enc", "app.plaintext.json"} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			cfg := m.config()
			cfg.AllowPlaintext = true
			m.keyring.SetAbsent(name != "app.enc")
			running, err := tokenkeep.Open(ctx, cfg)
			require.NoError(t, err)
			m.warnings = nil
			path := filepath.Join(m.dir, name)
			for range 8 {
				c, err := tokenkeep.Open(ctx, cfg)
				require.NoError(t, err)
				save(t, c, tokens)
				data, err := os.ReadFile(path)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(path, data[:len(data)-3], 0o600))
				m.warnings = nil
				require.Empty(t, load(t, running))
				require.Len(t, m.warnings, 1)
				require.Contains(t, m.warnings[0].Remedy, path+".damaged-")
				kept, _, _ := strings.Cut(strings.TrimPrefix(m.warnings[0].Remedy, "The file was kept as "), ". ")
				require.FileExists(t, kept)
			}
			require.Len(t, m.files(), 5)
			if name == "app.enc" {
				require.Len(t, m.keyring.Items(), 5)
			}
		})
	}
}

type rawClient struct{ data []byte }

func (r *rawClient) Unmarshal(b []byte) error { r.data = b; return nil }
func (r *rawClient) Marshal() ([]byte, error) { return r.data, nil }

// flip changes one bit of the byte at i, from the end if i is negative.
func flip(t *testing.T, path string, i int) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	if i < 0 {
		i += len(data)
	}
	data[i] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func TestWhatIsNoDamageMovesNothing(t *testing.T) {
	words := "correct horse"
	asked := 0
	m := newMachine(t)
	cfg := m.config()
	cfg.Store = "passphrase"
	cfg.Passphrase = func(context.Context) ([]byte, error) { asked++; return []byte(words), nil }
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, c, tokens)
	require.Equal(t, tokens, load(t, c))
	require.Equal(t, 1, asked)

	cfg.Store = ""
	words = "mistyped " + planted
	_, err = tokenkeep.Open(ctx, cfg)
	require.ErrorIs(t, err, persistence.ErrWrongKey)
	require.NotContains(t, err.Error(), planted)
	require.Equal(t, []string{"app.enc"}, m.files())

	without := m.config()
	without.AllowPlaintext = true
	_, err = tokenkeep.Open(ctx, without)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Equal(t, []string{"app.enc"}, m.files())

	path := filepath.Join(m.dir, "app.enc")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("tokenkeep-encrypted/2\nwhatever it is\n\n"), 0o600))
	_, err = tokenkeep.Open(ctx, cfg)
	require.ErrorIs(t, err, persistence.ErrUnsupportedVersion)
	require.Equal(t, []string{"app.enc"}, m.files())

	words = "correct horse"
	require.NoError(t, os.WriteFile(path, data, 0o600))
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, tokens, load(t, c))
}

// A process over SSH keeps a plaintext cache while one on the desktop trades
// up: it must notice, and neither go on beside the encrypted file nor lose what
// it has to say.
func TestRunningPlaintextProcessMeetsSaferFile(t *testing.T) {
	for _, itsKeyring := range []string{"works by now", "does not work"} {
		t.Run(itsKeyring, func(t *testing.T) {
			m := newMachine(t)
			m.keyring.SetAbsent(true)
			cfg := m.config()
			cfg.AllowPlaintext, cfg.Strict = true, true
			ssh, err := tokenkeep.Open(ctx, cfg)
			require.NoError(t, err)
			in := &rawClient{}
			require.NoError(t, ssh.Replace(ctx, in, cache.ReplaceHints{}))
			in.data = []byte(`{"RefreshToken":{"ssh":{"secret":"1"}}}`)
			require.NoError(t, ssh.Export(ctx, in, cache.ExportHints{}))
			require.Equal(t, []string{"app.plaintext.json"}, m.files())

			m.keyring.SetAbsent(false)
			cfg = m.config()
			cfg.AllowPlaintext = true
			desktop, err := tokenkeep.Open(ctx, cfg)
			require.NoError(t, err)
			require.Equal(t, []string{"app.enc"}, m.files())
			require.NoError(t, desktop.Update(ctx, func(current []byte) ([]byte, error) {
				require.Contains(t, string(current), `"ssh"`)
				return []byte(`{"RefreshToken":{"ssh":{"secret":"1"},"desktop":{"secret":"1"}}}`), nil
			}))
			if itsKeyring == "does not work" {
				m.keyring.SetLocked(true)
				err := ssh.Replace(ctx, in, cache.ReplaceHints{})
				require.ErrorIs(t, err, persistence.ErrKeyringLocked)
				in.data = []byte(`{"RefreshToken":{"ssh":{"secret":"2"}}}`)
				require.ErrorIs(t, ssh.Export(ctx, in, cache.ExportHints{}), persistence.ErrKeyringLocked)
				require.Equal(t, []string{"app.enc"}, m.files(), "nothing less safe was started beside it")
				return
			}
			in.data = []byte(`{"RefreshToken":{"ssh":{"secret":"2"}}}`)
			require.NoError(t, ssh.Export(ctx, in, cache.ExportHints{}))
			require.Equal(t, []string{"app.enc"}, m.files())
			both := load(t, desktop)
			require.Contains(t, both, `"desktop"`)
			require.Contains(t, both, `"2"`)
			require.True(t, ssh.Describe().Encrypted)
		})
	}
}

func TestStartCostsOneKeyringRead(t *testing.T) {
	m := newMachine(t)
	first, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	save(t, first, tokens)
	before := len(m.keyring.Calls())
	c, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	require.Equal(t, tokens, load(t, c))
	save(t, c, tokens)
	require.Len(t, m.keyring.Calls()[before:], 1)
}

func TestOpenLeavesNoLitter(t *testing.T) {
	m := newMachine(t)
	for range 5 {
		_, err := tokenkeep.Open(ctx, m.config())
		require.NoError(t, err)
	}
	require.Len(t, m.keyring.Items(), 1, "one key, whoever opened")
	require.Empty(t, m.files())
}

func TestConcurrentOpen(t *testing.T) {
	m := newMachine(t)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			c, err := tokenkeep.Open(ctx, m.config())
			if err != nil {
				t.Error(err)
				return
			}
			err = c.Update(ctx, func(current []byte) ([]byte, error) { return append(current, 'x'), nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	c, err := tokenkeep.Open(ctx, m.config())
	require.NoError(t, err)
	require.Equal(t, "xxxxxxxxxx", load(t, c))
	require.Len(t, m.keyring.Items(), 1)
}

// A file of a source that this program does not use is left alone.
func TestForeignSource(t *testing.T) {
	m := newMachine(t)
	require.NoError(t, os.MkdirAll(m.dir, 0o700))
	f, err := encrypted.New(filepath.Join(m.dir, "app.enc"), encrypted.Raw(make([]byte, 32)), &encrypted.Options{Name: "app"})
	require.NoError(t, err)
	require.NoError(t, f.Save(ctx, []byte(tokens)))
	_, err = tokenkeep.Open(ctx, m.config())
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Equal(t, []string{"app.enc"}, m.files())
}

const (
	fromSSH     = `{"RefreshToken":{"ssh":{"secret":"1"}}}`
	fromDesktop = `{"RefreshToken":{"desktop":{"secret":"1"}}}`
)

// permitting is the configuration of a process that permits plaintext.
func (m *machine) permitting() tokenkeep.Config {
	cfg := m.config()
	cfg.AllowPlaintext = true
	return cfg
}

// withoutKeyring is the configuration of a process that has no keyring.
func (m *machine) withoutKeyring() tokenkeep.Config {
	cfg := m.config()
	cfg.Keyring, cfg.AllowPlaintext = keyringtest.NewAbsent(), true
	return cfg
}

// Two sessions start with nothing stored, one of them without a keyring: what
// that one stores first is not lost, and is not left in plaintext.
func TestPlaintextAppearsBesideNothing(t *testing.T) {
	m := newMachine(t)
	desktop, err := tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	ssh, err := tokenkeep.Open(ctx, m.withoutKeyring())
	require.NoError(t, err)
	in := &rawClient{}
	require.NoError(t, desktop.Replace(ctx, in, cache.ReplaceHints{}))
	save(t, ssh, fromSSH)
	in.data = []byte(fromDesktop)
	require.NoError(t, desktop.Export(ctx, in, cache.ExportHints{}))
	require.Equal(t, []string{"app.enc"}, m.files())
	both := load(t, desktop)
	require.Contains(t, both, `"ssh"`)
	require.Contains(t, both, `"desktop"`)
}

// A move was cut short, or an encrypted file came from elsewhere.
func TestPlaintextBesideEncrypted(t *testing.T) {
	plain := func(m *machine) string { return filepath.Join(m.dir, "app.plaintext.json") }
	start := func(t *testing.T) *machine {
		m := newMachine(t)
		c, err := tokenkeep.Open(ctx, m.permitting())
		require.NoError(t, err)
		save(t, c, fromDesktop)
		require.NoError(t, os.WriteFile(plain(m), []byte(fromSSH), 0o600))
		return m
	}
	t.Run("both are sound", func(t *testing.T) {
		m := start(t)
		c, err := tokenkeep.Open(ctx, m.permitting())
		require.NoError(t, err)
		require.Contains(t, load(t, c), `"ssh"`)
		require.Contains(t, load(t, c), `"desktop"`)
		require.Equal(t, []string{"app.enc"}, m.files())
	})
	t.Run("the encrypted one is damaged", func(t *testing.T) {
		m := start(t)
		flip(t, filepath.Join(m.dir, "app.enc"), -1)
		c, err := tokenkeep.Open(ctx, m.permitting())
		require.NoError(t, err)
		require.Equal(t, fromSSH, load(t, c))
		require.Len(t, m.files(), 2, "the damaged one is kept")
	})
	t.Run("the plaintext one cannot be read", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("Windows has no modes")
		}
		for _, stored := range []bool{true, false} {
			m := start(t)
			require.NoError(t, os.Chmod(plain(m), 0o644))
			if !stored {
				require.NoError(t, os.Remove(filepath.Join(m.dir, "app.enc")))
			}
			c, err := tokenkeep.Open(ctx, m.permitting())
			require.NoError(t, err, "no reason not to use the encrypted one")
			require.Len(t, m.warnings, 1)
			require.Contains(t, m.warnings[0].String(), "Unencrypted tokens stay in "+plain(m)+".")
			save(t, c, fromDesktop)
			require.Equal(t, []string{"app.enc", "app.plaintext.json"}, m.files())
		}
	})
	t.Run("a move failed, and another process stored something first", func(t *testing.T) {
		for call := 1; call <= 8; call++ {
			m := newMachine(t)
			require.NoError(t, os.MkdirAll(m.dir, 0o700))
			require.NoError(t, os.WriteFile(plain(m), []byte(fromSSH), 0o600))
			cfg := m.permitting()
			failing := m.keyring.Reopen()
			failing.CrashAt(call, false)
			cfg.Keyring = failing
			_, _ = tokenkeep.Open(ctx, cfg)
			if !slices.Contains(m.files(), "app.plaintext.json") {
				require.Greater(t, call, 4, "it was moved")
				break
			}
			require.NoError(t, os.Rename(plain(m), m.dir+".away"))
			c, err := tokenkeep.Open(ctx, m.permitting())
			require.NoError(t, err)
			save(t, c, fromDesktop)
			require.NoError(t, os.Rename(m.dir+".away", plain(m)))
			c, err = tokenkeep.Open(ctx, m.permitting())
			require.NoError(t, err)
			require.Contains(t, load(t, c), `"ssh"`, "call %d", call)
			require.Contains(t, load(t, c), `"desktop"`)
			require.Equal(t, []string{"app.enc"}, m.files())
		}
	})
	t.Run("a move was cut short, and an account signed out since", func(t *testing.T) {
		m := newMachine(t)
		ssh, err := tokenkeep.Open(ctx, m.withoutKeyring())
		require.NoError(t, err)
		save(t, ssh, fromSSH)
		c, err := tokenkeep.Open(ctx, m.permitting()) // moves
		require.NoError(t, err)
		save(t, c, "{}")
		require.NoError(t, os.WriteFile(plain(m), []byte(fromSSH), 0o600)) // as if it had died before removing it
		c, err = tokenkeep.Open(ctx, m.permitting())
		require.NoError(t, err)
		require.Equal(t, "{}", load(t, c))
		require.Equal(t, []string{"app.enc"}, m.files())
	})
}

// A save that finds something safer makes the choice again under the lock that
// it holds, and so does one that finds a plaintext file to move.
func TestChoiceIsMadeAgainUnderTheLock(t *testing.T) {
	m := newMachine(t)
	ring := keyringtest.NewAbsent()
	cfg := m.withoutKeyring()
	cfg.Keyring = ring
	ssh, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	ring.SetAbsent(false)
	cfg.Keyring = ring.Reopen()
	desktop, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, desktop, fromDesktop)
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "app.plaintext.json"), []byte(fromSSH), 0o600))
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, ssh.Update(bounded, func(current []byte) ([]byte, error) {
		require.Contains(t, string(current), `"ssh"`)
		require.Contains(t, string(current), `"desktop"`)
		return nil, nil
	}))
}

func TestBusyLockIsNoReasonForPlaintext(t *testing.T) {
	m := newMachine(t)
	unlock, err := persistence.NewFileLock(filepath.Join(m.dir, "app.lock")).Lock(ctx)
	require.NoError(t, err)
	defer unlock()
	cfg := m.config()
	cfg.AllowPlaintext = true
	bounded, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = tokenkeep.Open(bounded, cfg)
	require.ErrorIs(t, err, persistence.ErrLockTimeout)
	require.Empty(t, m.warnings)
}

// A process that has the other key source too follows a file that was made with
// that one.
func TestOtherSourceAppears(t *testing.T) {
	m := newMachine(t)
	cfg := m.config()
	cfg.Passphrase = func(context.Context) ([]byte, error) { return []byte("correct horse"), nil }
	desktop, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	cfg.Keyring = keyringtest.NewAbsent()
	ssh, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, ssh, fromSSH)
	in := &rawClient{}
	require.NoError(t, desktop.Replace(ctx, in, cache.ReplaceHints{}))
	require.Equal(t, fromSSH, string(in.data))
	require.Equal(t, "passphrase", desktop.Describe().KeySource)
}

// Nobody is asked again and again for a passphrase that they do not give.
func TestPromptIsNotRepeated(t *testing.T) {
	m := newMachine(t)
	asked, give := 0, false
	cfg := m.withoutKeyring()
	cfg.Passphrase = func(context.Context) ([]byte, error) {
		asked++
		if !give {
			return nil, errors.New("cancelled")
		}
		return []byte("correct horse"), nil
	}
	plain, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	give = true
	safe, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, safe, fromDesktop)
	give, asked = false, 0
	for range 5 {
		require.Error(t, plain.Replace(ctx, &rawClient{}, cache.ReplaceHints{}))
	}
	require.Equal(t, 1, asked)
}

// Another process is faster in setting a file aside, at each of the moments
// that a call of the keyring marks.
func TestOthersSetAsideFirst(t *testing.T) {
	for at := 1; at <= 3; at++ {
		m := newMachine(t)
		c, err := tokenkeep.Open(ctx, m.config())
		require.NoError(t, err)
		save(t, c, tokens)
		path := filepath.Join(m.dir, "app.enc")
		cfg := m.config()
		cfg.Keyring = &interrupting{Keyring: keyringtest.New(), at: at, do: func() { _ = os.Rename(path, path+".damaged-by-another") }}
		_, err = tokenkeep.Open(ctx, cfg)
		require.NoError(t, err, "at call %d", at)
	}
}

// interrupting does something before the call of that number.
type interrupting struct {
	*keyringtest.Keyring
	at, calls int
	do        func()
}

func (k *interrupting) Get(ctx context.Context, service, user string) (string, error) {
	if k.calls++; k.calls == k.at {
		k.do()
	}
	return k.Keyring.Get(ctx, service, user)
}
