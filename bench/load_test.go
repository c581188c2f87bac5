//go:build linux

package bench

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tokenkeep/tokenkeep/encrypted"
)

// A cold Load: the file read and decrypted, with the key in memory. The limit
// is os.ReadFile and AES-GCM, in place, with a cipher that is set up already.

var loadTopic = topic{subjects: []subject{
	{"limit", sizes, loadLimit},
	{"tokenkeep", sizes, loadTokenkeep},
	{"msext", sizes, loadBy(openMsext)},
	{"99designs", []param{size10KB, size1MB}, loadBy(open99designs)},
}}

var rawKey = []byte("0123456789abcdef0123456789abcdef")

// newFile returns the encrypted file at path, with its key in memory.
func newFile(tb testing.TB, path string) *encrypted.File {
	tb.Helper()
	return must(fileAt(path))(tb)
}

func fileAt(path string) (*encrypted.File, error) {
	return encrypted.New(path, encrypted.Raw(rawKey), &encrypted.Options{Name: "bench"})
}

func loadLimit(tb testing.TB, p param) task {
	want, aead := tokens(p.n, 1), newGCM(tb)
	nonce := make([]byte, aead.NonceSize())
	path := written(tb, aead.Seal(nil, nonce, want, nil))
	var got []byte
	return task{
		run: func() error {
			file, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			got, err = aead.Open(file[:0], nonce, file, nil)
			return err
		},
		check: func(run func() error) error {
			got = nil
			if err := run(); err != nil {
				return err
			}
			return expect("loaded", got, want)
		},
	}
}

func loadTokenkeep(tb testing.TB, p param) task {
	file := newFile(tb, filepath.Join(tb.TempDir(), "cache.enc"))
	want := tokens(p.n, 1)
	ok(tb, file.Save(ctx, want))
	var got []byte
	return task{
		run: func() (err error) { got, err = file.Load(ctx); return err },
		check: func(run func() error) error {
			got = nil
			if err := run(); err != nil {
				return err
			}
			return expect("loaded", got, want)
		},
	}
}

// loadBy loads through a store that is opened anew each time, as these have
// nothing that always loads.
func loadBy(open opener) func(testing.TB, param) task {
	return func(tb testing.TB, p param) task {
		dir, want := tb.TempDir(), tokens(p.n, 1)
		ok(tb, open(tb, dir).Export(ctx, &memory{data: want}, exportHints))
		m := new(memory)
		return task{
			run: func() error { return open(tb, dir).Replace(ctx, m, replaceHints) },
			check: func(run func() error) error {
				m.data = nil
				if err := run(); err != nil {
					return err
				}
				return expect("loaded", m.data, want)
			},
		}
	}
}
