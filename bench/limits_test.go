//go:build linux

package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The limits: each the least that the machine needs for one piece of work.

var limitTopic = topic{subjects: []subject{
	{"stat", []param{size10KB, size10MB}, limitStat},
	{"os.Lstat", []param{size10KB}, limitOSLstat},
	{"read", sizes, limitRead},
	{"write", sizes, limitWrite},
	{"seal", sizes, limitSeal},
	{"open", sizes, limitOpen},
	{"flock", []param{{"processes=1", 1}}, limitFlock},
}}

// limitStat is one system call, and nothing around it but the path's zero byte.
func limitStat(tb testing.TB, p param) task {
	path := written(tb, random(p.n))
	var st unix.Stat_t
	return task{
		run: func() error { return unix.Lstat(path, &st) },
		check: func(run func() error) error {
			st = unix.Stat_t{}
			if err := run(); err != nil {
				return err
			}
			return expectSize(st.Size, p.n)
		},
	}
}

// limitOSLstat is the same as Go programs mostly do it.
func limitOSLstat(tb testing.TB, p param) task {
	path := written(tb, random(p.n))
	var fi fs.FileInfo
	return task{
		run: func() (err error) { fi, err = os.Lstat(path); return err },
		check: func(run func() error) error {
			fi = nil
			if err := run(); err != nil {
				return err
			}
			if fi == nil {
				return errors.New("nothing was asked")
			}
			return expectSize(fi.Size(), p.n)
		},
	}
}

func expectSize(got int64, want int) error {
	if got != int64(want) {
		return fmt.Errorf("a file of %d bytes, not %d", got, want)
	}
	return nil
}

func limitRead(tb testing.TB, p param) task {
	data := random(p.n)
	path := written(tb, data)
	var got []byte
	return task{
		run: func() (err error) { got, err = os.ReadFile(path); return err },
		check: func(run func() error) error {
			got = nil
			if err := run(); err != nil {
				return err
			}
			return expect("read", got, data)
		},
	}
}

func limitWrite(tb testing.TB, p param) task {
	data := random(p.n)
	path := filepath.Join(tb.TempDir(), "file")
	return task{
		run: func() error { return replaceDurably(path, data) },
		check: func(run func() error) error {
			if err := removed(path, run); err != nil {
				return err
			}
			got, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return expect("written", got, data)
		},
	}
}

// replaceDurably is what it takes to replace a file so that it survives a power
// cut: a new file, written and flushed, renamed, and its folder flushed.
func replaceDurably(path string, data []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// limitSeal encrypts into a buffer that is there already, with a cipher that is
// set up already.
func limitSeal(tb testing.TB, p param) task {
	data, aead := random(p.n), newGCM(tb)
	nonce, sealed := make([]byte, aead.NonceSize()), make([]byte, 0, p.n+aead.Overhead())
	return task{
		run: func() error { aead.Seal(sealed, nonce, data, nil); return nil },
		check: func(run func() error) error {
			clear(sealed[:cap(sealed)])
			if err := run(); err != nil {
				return err
			}
			got, err := aead.Open(nil, nonce, sealed[:cap(sealed)], nil)
			if err != nil {
				return err
			}
			return expect("sealed", got, data)
		},
	}
}

func limitOpen(tb testing.TB, p param) task {
	data, aead := random(p.n), newGCM(tb)
	nonce := make([]byte, aead.NonceSize())
	sealed, opened := aead.Seal(nil, nonce, data, nil), make([]byte, 0, p.n)
	return task{
		run: func() error { _, err := aead.Open(opened, nonce, sealed, nil); return err },
		check: func(run func() error) error {
			clear(opened[:cap(opened)])
			if err := run(); err != nil {
				return err
			}
			return expect("opened", opened[:cap(opened)], data)
		},
	}
}

// limitFlock takes a lock that is free and lets it go.
func limitFlock(tb testing.TB, _ param) task {
	path := written(tb, nil)
	f, other := must(os.Open(path))(tb), must(os.Open(path))(tb)
	tb.Cleanup(func() { f.Close(); other.Close() })
	lock := func(f *os.File, how int) error { return unix.Flock(int(f.Fd()), how|unix.LOCK_NB) }
	var whileHeld func() error
	return task{
		run: func() error {
			if err := lock(f, unix.LOCK_EX); err != nil {
				return err
			}
			if whileHeld != nil {
				if err := whileHeld(); err != nil {
					return err
				}
			}
			return lock(f, unix.LOCK_UN)
		},
		check: func(run func() error) error {
			refused := false
			whileHeld = func() error {
				refused = errors.Is(lock(other, unix.LOCK_EX), unix.EWOULDBLOCK)
				return nil
			}
			err := run()
			whileHeld = nil
			if err == nil && !refused {
				err = errors.New("the lock kept nobody out")
			}
			return err
		},
	}
}

func newGCM(tb testing.TB) cipher.AEAD {
	block := must(aes.NewCipher(random(32)))(tb)
	return must(cipher.NewGCM(block))(tb)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// written returns the path of a new file with that content.
func written(tb testing.TB, data []byte) string {
	path := filepath.Join(tb.TempDir(), "file")
	ok(tb, os.WriteFile(path, data, 0o600))
	return path
}
