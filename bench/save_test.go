//go:build linux

package bench

import (
	"os"
	"path/filepath"
	"testing"
)

// A Save, encrypted and durable. The limit is a new file, written, flushed and
// renamed, its folder flushed, and AES-GCM into a buffer that is there already.
// msext and 99designs are not durable: they write in place and flush nothing.

var saveTopic = topic{subjects: []subject{
	{"limit", sizes, saveLimit},
	{"tokenkeep", sizes, saveTokenkeep},
	{"msext", sizes, saveBy(openMsext)},
	{"99designs", []param{size10KB, size1MB}, saveBy(open99designs)},
}}

func saveLimit(tb testing.TB, p param) task {
	data, aead := tokens(p.n, 1), newGCM(tb)
	nonce, sealed := make([]byte, aead.NonceSize()), make([]byte, 0, len(data)+aead.Overhead())
	path := filepath.Join(tb.TempDir(), "file")
	return task{
		run: func() error { return replaceDurably(path, aead.Seal(sealed, nonce, data, nil)) },
		check: func(run func() error) error {
			if err := removed(path, run); err != nil {
				return err
			}
			file, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			got, err := aead.Open(nil, nonce, file, nil)
			if err != nil {
				return err
			}
			return expect("saved", got, data)
		},
	}
}

func saveTokenkeep(tb testing.TB, p param) task {
	path := filepath.Join(tb.TempDir(), "cache.enc")
	file, data := newFile(tb, path), tokens(p.n, 1)
	ok(tb, file.Save(ctx, data))
	return task{
		run: func() error { return file.Save(ctx, data) },
		check: func(run func() error) error {
			if err := removed(path, run); err != nil {
				return err
			}
			got, err := newFile(tb, path).Load(ctx)
			if err != nil {
				return err
			}
			return expect("saved", got, data)
		},
	}
}

func saveBy(open opener) func(testing.TB, param) task {
	return func(tb testing.TB, p param) task {
		dir, m := tb.TempDir(), &memory{data: tokens(p.n, 1)}
		store := open(tb, dir)
		return task{
			run: func() error { return store.Export(ctx, m, exportHints) },
			check: func(run func() error) error {
				// Another generation, so that what is stored already is no answer.
				if err := store.Export(ctx, &memory{data: tokens(p.n, 2)}, exportHints); err != nil {
					return err
				}
				if err := run(); err != nil {
					return err
				}
				got := new(memory)
				if err := open(tb, dir).Replace(ctx, got, replaceHints); err != nil {
					return err
				}
				return expect("saved", got.data, m.data)
			},
		}
	}
}
