//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/tokenkeep/tokenkeep/encrypted"
)

// A passphrase costs one Argon2id in each process, however often the file is
// loaded and saved. The limit is that one. It allocates 64 MiB, by which
// derivations can be counted.

var argon2Topic = topic{subjects: []subject{
	{"limit", []param{{"uses=20", 20}}, argon2Alone},
	{"tokenkeep", []param{{"uses=20", 20}}, argon2File},
}}

func argon2Alone(_ testing.TB, _ param) task {
	c := encrypted.DefaultCost
	var key []byte
	return task{
		run: func() error {
			key = argon2.IDKey([]byte("passphrase"), make([]byte, 16), c.Passes, c.Memory, c.Lanes, 32)
			return nil
		},
		check: func(run func() error) error {
			key = nil
			if err := run(); err != nil {
				return err
			}
			if len(key) != 32 {
				return errors.New("no key")
			}
			return nil
		},
	}
}

func argon2File(tb testing.TB, p param) task {
	path := filepath.Join(tb.TempDir(), "cache.enc")
	passphrase := encrypted.Passphrase(func(context.Context) ([]byte, error) { return []byte("passphrase"), nil }, nil)
	newFile := func() (*encrypted.File, error) { return encrypted.New(path, passphrase, nil) }
	data := tokens(size10KB.n, 1)
	ok(tb, must(newFile())(tb).Save(ctx, data))
	var got []byte
	derivations := 0
	return task{
		run: func() error {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			file, err := newFile() // as a new process does
			if err != nil {
				return err
			}
			for range p.n / 2 {
				if got, err = file.Load(ctx); err != nil {
					return err
				}
				if err := file.Save(ctx, data); err != nil {
					return err
				}
			}
			runtime.ReadMemStats(&after)
			derivations = int((after.TotalAlloc - before.TotalAlloc) / (uint64(encrypted.DefaultCost.Memory) << 10))
			return nil
		},
		check: func(run func() error) error {
			got = nil
			if err := run(); err != nil {
				return err
			}
			if derivations != 1 {
				return fmt.Errorf("%d derivations", derivations)
			}
			return expect("loaded", got, data)
		},
		metrics: func() map[string]float64 { return map[string]float64{"derivations/op": float64(derivations)} },
	}
}
