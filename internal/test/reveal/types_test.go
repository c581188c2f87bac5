package reveal_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/test/reveal"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

// planted is in every secret.
const planted = "planted-secret-of-the-test"

// key is a key for an encrypted file.
var key = []byte(planted + "123456")

const data = `{"Account":{"a":{"home_account_id":"a","environment":"e"}},"RefreshToken":{"r":{"home_account_id":"a","environment":"e","secret":"` + planted + `"}},` +
	`"OAuth2Token":{"k":{"access_token":"` + planted + `","refresh_token":"` + planted + `","token_type":"Bearer"}}}`

// harmless are the types that hold no secret, and lead to none, and why.
var harmless = map[string]string{
	"tokenkeep.Choice":         "words, places and refusals",
	"tokenkeep.ChosenBy":       "a word",
	"encrypted.Options":        "names and settings",
	"encrypted.Cost":           "numbers",
	"fallback.Warning":         "sentences",
	"fallback.Options":         "names and settings",
	"interop.Item":             "names",
	"keyring.ForeignItem":      "names",
	"keyring.Situation":        "a word",
	"keyring.Option":           "a function that holds a setting",
	"keyring/keyringtest.Item": "names",
	"keyring/keyringtest.Call": "names",
	"persistence.Error":        "errors hold no secret; their own tests look for them",
	"persistence.Option":       "a function that holds a setting",
	"persistence.Description":  "words and a path",
	"persistence.Account":      "ids",
	"persistence.Change":       "accounts and keys",
	"fallback.Refusal":         "a word and an error",
	"fallback.NoneError":       "refusals",
	"tokensource.Option":       "a function that holds a setting",
	"tokensource.Grant":        "a function",
	"entratest.Failure":        "a pretend answer",
	"entratest.Hold":           "a pretend pause",
	"entratest.User":           "a pretend person",
	"entratest.Options":        "a test's own settings",
	"entratest.Server":         "pretend tokens, which only tests know",

	"interop.Options":                     "names and settings",
	"persistence/persistencetest.Fault":   "a test's own errors",
	"persistence/persistencetest.Open":    "a function",
	"persistence/persistencetest.Options": "settings",
}

// plain are the secretive types whose fields a program sets and reads itself. They
// hold what they hold behind functions and types that hide it.
var plain = []string{"tokenkeep.Config", "encrypted.PassphraseOptions", "fallback.Candidate", "fallback.Selected"}

// secretive makes a value of each of the other types, which holds what is planted.
var secretive = map[string]func(t *testing.T) any{
	"tokenkeep.Config": func(t *testing.T) any {
		return tokenkeep.Config{Name: "app", Keyring: filledKeyring(t), Passphrase: passphrase()}
	},
	"encrypted.File":              func(t *testing.T) any { return filledFile(t) },
	"encrypted.PassphraseOptions": func(*testing.T) any { return &encrypted.PassphraseOptions{} },
	"fallback.Candidate": func(t *testing.T) any {
		f := filledFile(t)
		return fallback.Candidate{Name: "x", Open: func(context.Context) (persistence.Persistence, error) { return f, nil }}
	},
	"fallback.Selected": func(t *testing.T) any {
		return fallback.Selected{Candidate: "x", Persistence: filledMemory(t), Refusals: []fallback.Refusal{{Candidate: "y", Err: errors.New("z")}}}
	},
	"fallback.InsecurePlaintextFile": func(t *testing.T) any {
		f, err := fallback.NewInsecurePlaintextFile(filepath.Join(t.TempDir(), "x.plaintext.json"), func(fallback.Warning) {}, nil)
		require.NoError(t, err)
		require.NoError(t, f.Save(t.Context(), []byte(data)))
		_, err = f.Load(t.Context())
		require.NoError(t, err)
		return f
	},
	"keyring.Keys": func(t *testing.T) any {
		keys := keyring.NewKeys(filledKeyring(t), "s")
		_, _, err := keys.NewKey(t.Context(), "id")
		require.NoError(t, err)
		return keys
	},
	"keyring/keyringtest.Keyring": func(t *testing.T) any { return filledKeyring(t) },
	"persistence.Memory":          func(t *testing.T) any { return filledMemory(t) },
	"persistence.FileLock":        func(t *testing.T) any { return persistence.NewFileLock(filepath.Join(t.TempDir(), "x.lock")) },
	"persistence.Cache":           func(t *testing.T) any { return filledCache(t) },
	"persistence.Entries": func(t *testing.T) any {
		e, err := filledCache(t).Entries("contoso-cli")
		require.NoError(t, err)
		require.NoError(t, e.Set(t.Context(), "client-secret", []byte(planted)))
		return e
	},
	"persistence.Partitioned": func(t *testing.T) any {
		m := filledMemory(t)
		p, err := persistence.NewPartitioned(func(context.Context, string) (persistence.Persistence, error) { return m, nil })
		require.NoError(t, err)
		memory := new(memory)
		require.NoError(t, p.Replace(t.Context(), memory, cache.ReplaceHints{PartitionKey: "a.e"}))
		require.Contains(t, string(memory.data), planted)
		failing := persistencetest.Faulty(persistence.NewMemory(), persistencetest.Fault{Op: "SaveIf", Err: errors.New("down")})
		p2, err := persistence.NewPartitioned(func(context.Context, string) (persistence.Persistence, error) { return failing, nil })
		require.NoError(t, err)
		_ = p2.Export(t.Context(), memory, cache.ExportHints{PartitionKey: "a.e"}) // into the outbox
		return []any{p, p2}
	},
	"interop.Store": func(t *testing.T) any {
		path := filepath.Join(t.TempDir(), "msal_token_cache.json")
		require.NoError(t, os.WriteFile(path, []byte(`{"RefreshToken":{"a-e-refreshtoken-c--":{"home_account_id":"a","environment":"e","client_id":"c","credential_type":"RefreshToken","secret":"`+planted+`"}}}`), 0o600))
		s, err := interop.File(path, interop.Options{Clients: []string{"c"}})
		require.NoError(t, err)
		read, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Contains(t, string(read), planted)
		return s
	},
	"tokensource.Source": func(t *testing.T) any {
		s, err := tokensource.New(t.Context(), filledCache(t), "k", &oauth2.Config{ClientID: "c", ClientSecret: planted, Endpoint: oauth2.Endpoint{TokenURL: "https://x.example/token"}})
		require.NoError(t, err)
		token, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, planted, token.AccessToken)
		s.Invalidate(token)
		return s
	},
}

func passphrase() func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(planted), nil }
}

func filledKeyring(t *testing.T) *keyringtest.Keyring {
	k := keyringtest.New()
	require.NoError(t, k.Set(t.Context(), "s", "u", planted))
	require.NoError(t, k.Set(t.Context(), "s", "tokenkeep key id", base64.RawURLEncoding.EncodeToString(key)))
	return k
}

func filledMemory(t *testing.T) *persistence.Memory {
	m := persistence.NewMemory()
	require.NoError(t, m.Save(t.Context(), []byte(data)))
	return m
}

func filledFile(t *testing.T) *encrypted.File {
	require.Len(t, key, 32)
	f, err := encrypted.New(filepath.Join(t.TempDir(), "x.enc"), encrypted.Raw(key), nil)
	require.NoError(t, err)
	require.NoError(t, f.Save(t.Context(), []byte(data)))
	_, err = f.Load(t.Context())
	require.NoError(t, err)
	return f
}

func filledCache(t *testing.T) *persistence.Cache {
	c, err := persistence.New(filledFile(t))
	require.NoError(t, err)
	m := new(memory)
	require.NoError(t, c.Replace(t.Context(), m, cache.ReplaceHints{}))
	require.Contains(t, string(m.data), planted)
	require.NoError(t, c.Export(t.Context(), m, cache.ExportHints{}))
	return c
}

// memory is an MSAL client's.
type memory struct{ data []byte }

func (m *memory) Unmarshal(data []byte) error { m.data = slices.Clone(data); return nil }
func (m *memory) Marshal() ([]byte, error)    { return m.data, nil }

// No exported type prints a secret that it holds or leads to, whatever a program
// does to print it.
func TestNoTypePrintsItsSecrets(t *testing.T) {
	types, err := reveal.ExportedTypes("../../..")
	require.NoError(t, err)
	require.Greater(t, len(types), 30)
	for _, name := range types {
		make, ok := secretive[name]
		require.NotEqual(t, ok, harmless[name] != "", "%s: add the type either to harmless, with the reason, or to secretive", name)
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			v := make(t)
			if values, ok := v.([]any); ok {
				v = values[0]
			}
			if !slices.Contains(plain, name) {
				require.Implements(t, (*fmt.Formatter)(nil), v, "it is to print its description")
				require.Implements(t, (*slog.LogValuer)(nil), v)
				require.NotContains(t, fmt.Sprintf("%v", v), "{", "it is to print its description")
			}
			out := reveal.All(make(t))
			if form := reveal.Found(out, planted); form != "" {
				i := strings.Index(out, form)
				t.Errorf("prints a secret: …%s…", out[max(0, i-200):min(len(out), i+len(form)+20)])
			}
		})
	}
	for name := range harmless {
		require.Contains(t, types, name, "there is no such type any more")
	}
	for name := range secretive {
		require.Contains(t, types, name, "there is no such type any more")
	}
}

// The control: a secret is found in a value that does not hide it, in whatever way
// it holds it.
func TestSecretsAreFound(t *testing.T) {
	type inner struct{ secret []byte }
	for name, v := range map[string]any{
		"a string":            planted,
		"bytes":               []byte("before " + planted + " behind"),
		"a field":             struct{ secret string }{planted},
		"bytes in a field":    struct{ secret []byte }{[]byte(data)},
		"behind a pointer":    &inner{[]byte(planted)},
		"behind two pointers": struct{ p *inner }{&inner{[]byte(planted)}},
		"an error":            errors.New(planted),
		"a token":             &oauth2.Token{AccessToken: planted, Expiry: time.Now()},
		"an array":            [32]byte(key),
	} {
		require.NotEmpty(t, reveal.Found(reveal.All(v), planted), name)
	}
	for _, text := range []string{base64.StdEncoding.EncodeToString([]byte("x" + planted + "y")), base64.StdEncoding.EncodeToString([]byte("xyz" + planted)), base64.StdEncoding.EncodeToString([]byte("xy" + planted + "z"))} {
		require.NotEmpty(t, reveal.Found(text, planted))
	}
	require.Empty(t, reveal.Found(reveal.All("planted"), planted))
}
