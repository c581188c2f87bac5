package tokenkeep_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// strictClient takes what MSAL takes: no bytes or a JSON object, and nothing
// before it.
type strictClient struct{ data map[string]json.RawMessage }

func (c *strictClient) Unmarshal(b []byte) error {
	c.data = nil
	if len(b) == 0 {
		return nil
	}
	if b[0] != '{' {
		return errors.New("no object")
	}
	return json.Unmarshal(b, &c.data)
}

func (c *strictClient) Marshal() ([]byte, error) { return json.Marshal(c.data) }

func (c *strictClient) String() string { b, _ := c.Marshal(); return string(b) }

// use signs in as MSAL does, and returns what the program had before.
func use(c *persistence.Cache) (had string, err error) {
	client := &strictClient{}
	if err := c.Replace(ctx, client, cache.ReplaceHints{}); err != nil {
		return "", err
	}
	had = client.String()
	if client.data == nil {
		client.data = map[string]json.RawMessage{}
	}
	client.data["Mine"] = json.RawMessage(fmt.Sprintf(`{"k":"%s after %d bytes"}`, planted, len(had))) // another value each time
	return had, c.Export(ctx, client, cache.ExportHints{})
}

// holdsNothing are files that editors, scripts and crashes leave.
var holdsNothing = map[string]string{
	"no bytes": "", "a blank": " ", "a newline": "\n", "NULs": strings.Repeat("\x00", 4096), "null": "null\n", "a byte order mark": "\ufeff", "an object": "{}",
}

// damaged are files with something in them that is no cache any more.
var damaged = map[string]string{
	"cut off": `{"Mine":{"k":`, "cut off, and NULs": `{"Mine":{"k":` + strings.Repeat("\x00", 512), "NULs, and the end": strings.Repeat("\x00", 512) + `"k":1}}`,
	"the end alone": `"k":1}}`, "text": "sign in, please", "an array": "[1]", "a string": `"x"`, "UTF-16": "\xff\xfe{\x00}\x00", "bytes": "\x1f\x8b\x08\xff",
}

// Whatever the plaintext file holds, the program goes on, in each of its states,
// and nobody has to delete a file by hand: what holds nothing counts as nothing,
// and anything else that cannot be used is renamed, with a warning.
func TestAnyPlaintextFileCanBeUsed(t *testing.T) {
	const sound = `{"Mine":{"before":"1"}}`
	for how, open := range map[string]func(m *machine) (*persistence.Cache, error){
		"as plaintext": func(m *machine) (*persistence.Cache, error) { return tokenkeep.Open(ctx, m.withoutKeyring()) },
		"encrypted":    func(m *machine) (*persistence.Cache, error) { return tokenkeep.Open(ctx, m.permitting()) },
		"on its own": func(m *machine) (*persistence.Cache, error) {
			file, err := fallback.NewInsecurePlaintextFile(m.plaintextPath(), func(fallback.Warning) {}, nil)
			if err != nil {
				return nil, err
			}
			return persistence.New(file, persistence.WithLogger(m.config().Logger))
		},
	} {
		check := func(name, content, had string, aside bool) {
			t.Run(how+"/"+name, func(t *testing.T) {
				m := newMachine(t)
				require.NoError(t, os.MkdirAll(m.dir, 0o700))
				m.plant(content)
				c, err := open(m)
				require.NoError(t, err)
				got, err := use(c)
				require.NoError(t, err)
				require.JSONEq(t, had, got)
				again, err := open(m)
				require.NoError(t, err)
				got, err = use(again)
				require.NoError(t, err)
				require.Contains(t, got, planted)
				kept := 0
				for _, name := range m.files() {
					if strings.Contains(name, ".damaged-") {
						kept++
					}
				}
				require.Equal(t, aside, kept == 1, m.files())
				told := false
				for _, w := range m.takeWarnings() {
					told = told || strings.Contains(w.Remedy, ".damaged-")
				}
				require.Equal(t, aside && how != "on its own", told)
			})
		}
		for name, content := range holdsNothing {
			check(name, content, "{}", false)
		}
		check("a byte order mark before a cache", "\ufeff"+sound+"\r\n", sound, false)
		check("NULs behind a cache", sound+"\x00\x00", sound, false)
		for name, content := range damaged {
			check(name, content, "{}", true)
		}
	}
}

// The same for the encrypted file. It has no content that holds nothing: an empty
// file is one that a crash left.
func TestAnyEncryptedFileCanBeUsed(t *testing.T) {
	for name, content := range map[string]string{"no bytes": "", "a newline": "\n", "NULs": strings.Repeat("\x00", 4096), "a mark": "\ufeff", "text": "x", "an object": "{}"} {
		for _, plaintext := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/plaintext %v", name, plaintext), func(t *testing.T) {
				m := newMachine(t)
				require.NoError(t, os.MkdirAll(m.dir, 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(m.dir, "app.enc"), []byte(content), 0o600))
				cfg := m.config()
				cfg.AllowPlaintext = plaintext
				m.keyring.SetAbsent(plaintext)
				c, err := tokenkeep.Open(ctx, cfg)
				require.NoError(t, err)
				_, err = use(c)
				require.NoError(t, err)
				require.Contains(t, m.takeWarnings()[0].Remedy, ".damaged-")
			})
		}
	}
	t.Run("what it holds is no cache", func(t *testing.T) {
		m := newMachine(t)
		c, err := tokenkeep.Open(ctx, m.config())
		require.NoError(t, err)
		for _, content := range []string{"xyz", "\n", "[]", "\ufeff{}"} {
			save(t, c, content)
			_, err = use(c)
			require.NoError(t, err, content)
		}
		require.Len(t, m.takeWarnings(), 2)
		require.Len(t, m.files(), 3)
	})
	t.Run("another program's format is not judged by who does not use it", func(t *testing.T) {
		m := newMachine(t)
		c, err := tokenkeep.Open(ctx, m.withoutKeyring())
		require.NoError(t, err)
		save(t, c, "xyz")
		require.Equal(t, "xyz", load(t, c))
		c, err = tokenkeep.Open(ctx, m.withoutKeyring())
		require.NoError(t, err)
		require.Equal(t, "xyz", load(t, c))
	})
}

// The files of the lock are a cache's too: a crash leaves them empty or full of
// NULs, and they hold nothing that is needed.
func TestAnyLockFileCanBeUsed(t *testing.T) {
	for _, content := range []string{"", "\n", strings.Repeat("\x00", 4096), strings.Repeat("x", 5000), "\x00         1 2026-01-01T00:00:00Z\nmoved:x y\x00z\n"} {
		m := newMachine(t)
		require.NoError(t, os.MkdirAll(m.dir, 0o700))
		for _, name := range []string{"app.lock", "app.lock.turn"} {
			require.NoError(t, os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o600))
		}
		m.plant(`{"Mine":{"before":"1"}}`)
		c, err := tokenkeep.Open(ctx, m.permitting())
		require.NoError(t, err)
		_, err = use(c)
		require.NoError(t, err)
		require.NoError(t, tokenkeep.Rotate(ctx, m.permitting()))
	}
}

// The control: what these tests call damaged, MSAL refuses.
func TestStrictClientIsStrict(t *testing.T) {
	for name, content := range damaged {
		require.Error(t, new(strictClient).Unmarshal([]byte(content)), name)
	}
	for name, content := range holdsNothing {
		err := new(strictClient).Unmarshal([]byte(content))
		require.Equal(t, content == "" || content == "{}", err == nil, name)
	}
}
