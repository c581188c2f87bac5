package encrypted

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

var sizes = []int{10 << 10, 1 << 20, 10 << 20}

func sizeName(n int) string {
	if n < 1<<20 {
		return fmt.Sprintf("%dKB", n>>10)
	}
	return fmt.Sprintf("%dMB", n>>20)
}

// aesGCM is AES-256-GCM alone: the least that encryption can cost.
func aesGCM(b *testing.B) cipher.AEAD {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return aead
}

// BenchmarkLoad: "File" is Load, "limit" is reading a file of that size and
// decrypting it in place, "read" is the reading alone.
func BenchmarkLoad(b *testing.B) {
	for _, size := range sizes {
		path := filepath.Join(b.TempDir(), "cache")
		f := newFile(b, path, Raw(randomKey()))
		if err := f.Save(ctx, make([]byte, size)); err != nil {
			b.Fatal(err)
		}
		b.Run("File/"+sizeName(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Load(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
		aead, nonce := aesGCM(b), make([]byte, 12)
		sealed := filepath.Join(b.TempDir(), "sealed")
		if err := os.WriteFile(sealed, aead.Seal(nil, nonce, make([]byte, size), nil), 0o600); err != nil {
			b.Fatal(err)
		}
		b.Run("limit/"+sizeName(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				file, err := os.ReadFile(sealed)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := aead.Open(file[:0], nonce, file, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("read/"+sizeName(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := os.ReadFile(sealed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSave: "File" is Save, "limit" is encrypting and replacing a file
// durably, without lock, header and key derivation.
func BenchmarkSave(b *testing.B) {
	for _, size := range sizes {
		data := make([]byte, size)
		path := filepath.Join(b.TempDir(), "cache")
		f := newFile(b, path, Raw(randomKey()))
		b.Run("File/"+sizeName(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Save(ctx, data); err != nil {
					b.Fatal(err)
				}
			}
		})
		aead, nonce := aesGCM(b), make([]byte, 12)
		b.Run("limit/"+sizeName(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := securefile.Replace(ctx, path, aead.Seal(nil, nonce, data, nil)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRevision is what a program pays before each use of a token.
func BenchmarkRevision(b *testing.B) {
	f := newFile(b, filepath.Join(b.TempDir(), "cache"), Raw(randomKey()))
	if err := f.Save(ctx, make([]byte, 1<<20)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Revision(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHeader is parsing a header and deriving its keys: what every load
// adds to the limit, whatever the size.
func BenchmarkHeader(b *testing.B) {
	f := newFile(b, filepath.Join(b.TempDir(), "cache"), Raw(randomKey()))
	parts, _, err := (*fileCodec)(f).Encode(ctx, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		h, _, err := parse(parts[0])
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := f.unlock(ctx, &h); err != nil {
			b.Fatal(err)
		}
	}
}
