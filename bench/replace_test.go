//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	peer "github.com/99designs/keyring"
	msext "github.com/AzureAD/microsoft-authentication-extensions-for-go/cache"
	msextfile "github.com/AzureAD/microsoft-authentication-extensions-for-go/cache/accessor/file"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// A warm Replace: what every silent token costs when nothing has changed. The
// limit is one stat.

var replaceTopic = topic{settles: true, subjects: []subject{
	{"limit", []param{size10KB, size1MB, size10MB}, limitStat},
	{"tokenkeep", []param{size10KB, size1MB, size10MB}, replaceBy(openTokenkeep)},
	{"msext", []param{size10KB, size1MB, size10MB}, replaceBy(openMsext)},
	{"99designs", []param{size10KB, size1MB}, replaceBy(open99designs)},
}}

// opener opens a store of tokens in a folder. Two that are opened there share
// what they store.
type opener func(tb testing.TB, dir string) cache.ExportReplace

func replaceBy(open opener) func(testing.TB, param) task {
	return func(tb testing.TB, p param) task {
		dir := tb.TempDir()
		ours, others := open(tb, dir), open(tb, dir)
		want := tokens(p.n, 1)
		ok(tb, others.Export(ctx, &memory{data: want}, exportHints))
		m, generation := new(memory), 1
		replace := func() error { return ours.Replace(ctx, m, replaceHints) }
		ok(tb, replace())
		ok(tb, expect("loaded", m.data, want))
		return task{
			run:    replace,
			settle: replace,
			// A Replace without effect is right only as long as nothing has
			// changed: after another writer's save it has to load.
			check: func(run func() error) error {
				generation++
				changed := &memory{data: tokens(p.n, generation)}
				// Replace first, as MSAL does: what it brings is changed, not merged.
				if err := others.Replace(ctx, new(memory), replaceHints); err != nil {
					return err
				}
				if err := others.Export(ctx, changed, exportHints); err != nil {
					return err
				}
				if err := run(); err != nil {
					return err
				}
				return expect("loaded after a change", m.data, changed.data)
			},
		}
	}
}

// openTokenkeep opens what tokenkeep.Open gives its users: the encrypted file,
// its key in a keyring.
func openTokenkeep(tb testing.TB, dir string) cache.ExportReplace {
	tb.Helper()
	return must(persistence.New(newFile(tb, filepath.Join(dir, "cache.enc"))))(tb)
}

func openMsext(tb testing.TB, dir string) cache.ExportReplace {
	tb.Helper()
	storage := must(msextfile.New(filepath.Join(dir, "cache.json")))(tb)
	return must(msext.New(storage, filepath.Join(dir, "cache.timestamp")))(tb)
}

func open99designs(tb testing.TB, dir string) cache.ExportReplace {
	tb.Helper()
	k := must(peer.Open(peer.Config{
		AllowedBackends:  []peer.BackendType{peer.FileBackend},
		FileDir:          dir,
		FilePasswordFunc: peer.FixedStringPrompt("passphrase"),
	}))(tb)
	return glue{k}
}

// glue is the obvious way to put a keyring under MSAL.
type glue struct{ k peer.Keyring }

func (g glue) Replace(_ context.Context, u cache.Unmarshaler, _ cache.ReplaceHints) error {
	item, err := g.k.Get("cache")
	if errors.Is(err, peer.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("99designs: %w", err)
	}
	return u.Unmarshal(item.Data)
}

func (g glue) Export(_ context.Context, m cache.Marshaler, _ cache.ExportHints) error {
	data, err := m.Marshal()
	if err != nil {
		return err
	}
	return g.k.Set(peer.Item{Key: "cache", Data: data})
}
