package signout

import (
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// stores are where the real clients keep their tokens.
var stores = map[string]func(t *testing.T) func(partition string) (persistence.Persistence, error){
	"plaintext file": func(t *testing.T) func(string) (persistence.Persistence, error) {
		dir := t.TempDir()
		return func(partition string) (persistence.Persistence, error) {
			return fallback.NewInsecurePlaintextFile(filepath.Join(dir, "tokens"+hex.EncodeToString([]byte(partition))+".json"), func(fallback.Warning) {}, nil)
		}
	},
	"encrypted file": func(t *testing.T) func(string) (persistence.Persistence, error) {
		dir, keys := t.TempDir(), keyringtest.New()
		return func(partition string) (persistence.Persistence, error) {
			name := "tokens" + hex.EncodeToString([]byte(partition))
			return encrypted.New(filepath.Join(dir, name+".enc"), keyring.NewKeys(keys, name), &encrypted.Options{Name: name})
		}
	},
	"memory": func(*testing.T) func(string) (persistence.Persistence, error) {
		var mu sync.Mutex
		rows := map[string]*persistence.Memory{}
		return func(partition string) (persistence.Persistence, error) {
			mu.Lock()
			defer mu.Unlock()
			if rows[partition] == nil {
				rows[partition] = persistence.NewMemory()
			}
			return rows[partition], nil
		}
	},
}

// A sign-out sticks with the real MSAL client and up to four answers under way.
func TestSignOutsStickWithMSAL(t *testing.T) {
	runs := 1
	if long {
		runs = 20
	}
	for store, newStore := range stores {
		for _, p := range Programs {
			t.Run(store+"/"+p.Name, func(t *testing.T) {
				t.Parallel()
				for range runs {
					seed := rand.Uint64()
					if err := Held(t, p, rand.New(rand.NewPCG(seed, 0)), newStore(t), nil); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			})
		}
	}
}

// The control: the last writer wins.
func TestTheLastWriterUndoesSignOuts(t *testing.T) {
	open := stores["memory"](t)
	err := Held(t, Programs[0], rand.New(rand.NewPCG(1, 0)), open, func() cache.ExportReplace { return naive{open} })
	if err == nil {
		t.Fatal("the control was not caught: the test with MSAL proves nothing")
	}
	t.Log(err)
}

// naive is glue as the documentation of MSAL Go shows it.
type naive struct {
	open func(string) (persistence.Persistence, error)
}

func (n naive) Replace(ctx context.Context, u cache.Unmarshaler, _ cache.ReplaceHints) error {
	s, err := n.open("")
	if err != nil {
		return err
	}
	data, err := s.Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return u.Unmarshal(data)
}

func (n naive) Export(ctx context.Context, m cache.Marshaler, _ cache.ExportHints) error {
	s, err := n.open("")
	if err != nil {
		return err
	}
	data, err := m.Marshal()
	if err != nil {
		return err
	}
	return s.Save(ctx, data)
}
