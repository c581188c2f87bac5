package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// The ways to keep a cache.
const (
	encryptedFile = "encrypted file"
	plaintextFile = "plaintext file"
	keyringItem   = "keyring item"
	opened        = "Open"
	openedPlain   = "Open without a keyring"
)

var backends = []string{encryptedFile, plaintextFile, keyringItem, opened, openedPlain}

// place is where a test keeps a cache: its files in dir and, unless it is
// elsewhere, the keyring of all the test's processes.
type place struct{ kind, dir, keys string }

func newPlace(t testing.TB, kind string) place {
	t.Helper()
	dir := t.TempDir()
	p := place{kind, filepath.Join(dir, "tokens"), filepath.Join(dir, "keys")}
	require.NoError(t, os.Mkdir(p.keys, 0o700))
	return p
}

// args and placeOf hand a place over to another process.
func (p place) args(more ...any) []string {
	args := []string{p.kind, p.dir, p.keys}
	for _, a := range more {
		args = append(args, fmt.Sprint(a))
	}
	return args
}

func placeOf(args []string) (place, []string) { return place{args[0], args[1], args[2]}, args[3:] }

func (p place) keyring() *keyringtest.Keyring { return keyringtest.NewDir(p.keys) }

const cacheName = "app"

func (p place) path() string { return filepath.Join(p.dir, cacheName) }

// store is what every backend here is.
type store interface {
	persistence.Versioned
	persistence.NamedLocker
}

// store opens the backend itself, for those that are not chosen by Open.
func (p place) store() (store, error) {
	switch p.kind {
	case encryptedFile:
		return p.encrypted()
	case plaintextFile:
		return fallback.NewInsecurePlaintextFile(p.path()+".json", func(fallback.Warning) {}, nil)
	case keyringItem:
		ring := p.keyring()
		ring.SetLimit(func(string, string) int { return 2560 })
		item, err := keyring.New(ring, cacheName, "user", persistence.NewFileLock(p.path()+".lock"))
		if err != nil {
			return nil, err
		}
		return item.(store), nil
	}
	return nil, errors.New("no store: " + p.kind)
}

func (p place) encrypted() (*encrypted.File, error) {
	return encrypted.New(p.path()+".enc", keyring.NewKeys(p.keyring(), cacheName), &encrypted.Options{Name: cacheName})
}

// cache opens the cache as a program does. Under strict a storage error fails
// the call; otherwise nil from Export may mean that the bytes wait in memory.
func (p place) cache(ctx context.Context, strict bool) (*persistence.Cache, error) {
	quiet := slog.New(slog.DiscardHandler)
	if p.kind == opened || p.kind == openedPlain {
		cfg := tokenkeep.Config{Name: cacheName, Dir: p.dir, Keyring: p.keyring(), AllowPlaintext: true, Strict: strict,
			Logger: quiet, Warn: func(fallback.Warning) {}}
		if p.kind == openedPlain {
			cfg.Keyring = keyringtest.NewAbsent()
		}
		return tokenkeep.Open(ctx, cfg)
	}
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	opts := []persistence.Option{persistence.WithLogger(quiet)}
	if strict {
		opts = append(opts, persistence.WithStrict())
	}
	return persistence.New(s, opts...)
}

// load returns what is stored, by a cache that is opened anew; nil for nothing.
func (p place) load() ([]byte, error) {
	ctx, cancel := patient()
	defer cancel()
	c, err := p.cache(ctx, true)
	if err != nil {
		return nil, err
	}
	data, err := c.Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil, nil
	}
	return data, err
}

// save stores data, by a cache that is opened anew.
func (p place) save(data []byte) error {
	ctx, cancel := patient()
	defer cancel()
	c, err := p.cache(ctx, true)
	if err != nil {
		return err
	}
	return c.Update(ctx, func([]byte) ([]byte, error) { return data, nil })
}

func (p place) keyCount(t testing.TB) int {
	t.Helper()
	items, err := filepath.Glob(filepath.Join(p.keys, "*.json"))
	require.NoError(t, err)
	return len(items)
}

// The controls: what else one could give to MSAL.
const (
	tokenkeepGlue = "tokenkeep"
	naiveGlue     = "naive"  // loads for every Replace, saves for every Export
	silentGlue    = "silent" // the same, and keeps storage errors to itself
	unionGlue     = "union"  // merges, but takes nothing for removed
	hastyGlue     = "hasty"  // tokenkeep's, where the program acknowledges too early
)

// glue opens the cache of a place for MSAL.
func (p place) glue(ctx context.Context, kind string, strict bool) (cache.ExportReplace, error) {
	switch kind {
	case tokenkeepGlue, hastyGlue:
		return p.cache(ctx, strict)
	}
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	return glue{s, kind}, nil
}

type glue struct {
	store
	kind string
}

func (g glue) Replace(ctx context.Context, u cache.Unmarshaler, _ cache.ReplaceHints) error {
	data, err := g.Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		data, err = []byte("{}"), nil
	}
	if err != nil {
		return err
	}
	return u.Unmarshal(data)
}

func (g glue) Export(ctx context.Context, m cache.Marshaler, _ cache.ExportHints) error {
	data, err := m.Marshal()
	if err != nil {
		return err
	}
	switch g.kind {
	case unionGlue:
		return g.union(ctx, data)
	case silentGlue:
		_ = g.Save(ctx, data)
		return nil
	}
	return g.Save(ctx, data)
}

func (g glue) union(ctx context.Context, ours []byte) error {
	unlock, err := g.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	theirs, rev, err := g.LoadRevision(ctx)
	if err != nil && !errors.Is(err, persistence.ErrNotFound) {
		return err
	}
	merged, changed, err := merge.Bytes(merge.BytesInput{BaseUnknown: true, Ours: ours, Theirs: theirs})
	if err != nil || !changed {
		return err
	}
	_, err = g.SaveIf(ctx, merged, rev)
	return err
}

// memory is an in-memory cache of the format that MSAL's have.
type memory struct {
	sections map[string]map[string]map[string]string
}

func (m *memory) Marshal() ([]byte, error) { return json.Marshal(m.sections) }

func (m *memory) Unmarshal(data []byte) error {
	m.sections = nil
	return json.Unmarshal(data, &m.sections)
}

// add adds an entry to the cache.
func (m *memory) add(key string) {
	if m.sections[section] == nil {
		m.sections = map[string]map[string]map[string]string{section: {}}
	}
	m.sections[section][key] = map[string]string{
		"home_account_id": key, "environment": "login.microsoftonline.com", "secret": "secret of " + key,
	}
}

// has tells whether the entry is there, whole.
func (m *memory) has(key string) bool { return m.sections[section][key]["secret"] == "secret of "+key }

const section = "AccessToken"
