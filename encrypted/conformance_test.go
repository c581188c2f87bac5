package encrypted_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

func TestConformance(t *testing.T) {
	passphrase := encrypted.Passphrase(func(context.Context) ([]byte, error) { return []byte("open sesame"), nil }, &encrypted.PassphraseOptions{Cost: encrypted.Cost{Memory: 32, Passes: 1, Lanes: 1}})
	for name, source := range map[string]encrypted.KeySource{
		"raw":        encrypted.Raw(bytes.Repeat([]byte{1}, 32)),
		"passphrase": passphrase,
	} {
		t.Run(name, func(t *testing.T) {
			for part, byteOf := range map[string]func(size int) int{"header": func(int) int { return 60 }, "body": func(size int) int { return size - 1 }} {
				t.Run(part, func(t *testing.T) {
					persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
						path := filepath.Join(t.TempDir(), "cache")
						return func() (persistence.Persistence, error) { return encrypted.New(path, source, nil) }
					}, &persistencetest.Options{Damage: func(t testing.TB, p persistence.Persistence) {
						path := persistence.Describe(p).Location
						text, err := os.ReadFile(path)
						require.NoError(t, err)
						text[byteOf(len(text))] ^= 1
						require.NoError(t, os.WriteFile(path, text, 0o600))
					}})
				})
			}
		})
	}
}
