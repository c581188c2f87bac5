package sealed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

const planted = `{"RefreshToken":{"k":{"secret":"pl4nted-s3cret"}}}`

func key(id string, fill byte) Key { return NewKey(id, bytes.Repeat([]byte{fill}, keySize)) }

func newKeys(t testing.TB, current Key, older ...Key) *Keys {
	t.Helper()
	k, err := New(current, older...)
	require.NoError(t, err)
	return k
}

func TestConformance(t *testing.T) {
	k := newKeys(t, key("a", 1))
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		m := persistence.NewMemory()
		return func() (persistence.Persistence, error) { return k.Account("alice", m), nil }
	}, nil)
}

// TestConformanceWithDamage: what another has changed in the store is noticed, and can
// be set aside where the store can do that.
func TestConformanceWithDamage(t *testing.T) {
	k := newKeys(t, key("a", 1))
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		path := filepath.Join(t.TempDir(), "cache")
		return func() (persistence.Persistence, error) {
			f, err := fallback.NewInsecurePlaintextFile(path, func(fallback.Warning) {}, nil)
			return k.Account("alice", f), err
		}
	}, &persistencetest.Options{Damage: func(t testing.TB, p persistence.Persistence) {
		path := persistence.Describe(p).Location
		stored, err := os.ReadFile(path)
		require.NoError(t, err)
		stored[len(stored)-1] ^= 1
		require.NoError(t, os.WriteFile(path, stored, 0o600))
	}})
}

func TestAbilities(t *testing.T) {
	k := newKeys(t, key("a", 1))
	persistencetest.RunWrapper(t, func(store persistence.Versioned) persistence.Persistence { return k.Account("alice", store) })
	d := persistence.Describe(k.Account("alice", persistence.NewMemory()))
	require.Equal(t, persistence.Description{Backend: "memory", Encrypted: true, KeySource: "program"}, d)
}

// TestRevisionOfWhatDoesNotOpen: a caller that wants to delete or replace what cannot
// be opened needs its revision.
func TestRevisionOfWhatDoesNotOpen(t *testing.T) {
	m := persistence.NewMemory()
	a := newKeys(t, key("a", 1)).Account("alice", m)
	require.NoError(t, m.Save(t.Context(), []byte("something else")))
	want, err := m.Revision(t.Context())
	require.NoError(t, err)
	data, rev, err := a.LoadRevision(t.Context())
	require.ErrorIs(t, err, persistence.ErrCorrupt)
	require.Nil(t, data)
	require.Equal(t, want, rev)
}

// TestTheServerSeesNothing: neither the store nor a save that failed has a
// token, and no two saves are alike.
func TestTheServerSeesNothing(t *testing.T) {
	m := persistence.NewMemory()
	a := newKeys(t, key("a", 1)).Account("alice", m)
	seen := map[string]bool{}
	for range 20 {
		require.NoError(t, a.Save(t.Context(), []byte(planted)))
		stored, err := m.Load(t.Context())
		require.NoError(t, err)
		require.NotContains(t, string(stored), "pl4nted")
		require.NotContains(t, string(stored), "RefreshToken")
		require.False(t, seen[string(stored)])
		seen[string(stored)] = true
	}
	data, err := a.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, planted, string(data))
}

// TestAnotherUsersRow: a row that somebody copied, by whatever way, does not
// open as another user's. The control opens in its own place.
func TestAnotherUsersRow(t *testing.T) {
	k := newKeys(t, key("a", 1))
	alice, bob := persistence.NewMemory(), persistence.NewMemory()
	require.NoError(t, k.Account("alice", alice).Save(t.Context(), []byte(planted)))
	stored, err := alice.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, bob.Save(t.Context(), stored))
	for _, account := range []string{"bob", "", "alic", "alicee", "\nalice"} {
		_, err = k.Account(account, bob).Load(t.Context())
		require.ErrorIs(t, err, persistence.ErrCorrupt, account)
		_, _, err = k.Account(account, bob).LoadRevision(t.Context())
		require.ErrorIs(t, err, persistence.ErrCorrupt, account)
		requireRemedy(t, err)
	}
	data, err := k.Account("alice", bob).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, planted, string(data))
	require.NoError(t, k.Account("bob", bob).Delete(t.Context()), "what does not open can be removed")
}

func requireRemedy(t *testing.T, err error) {
	t.Helper()
	var e *persistence.Error
	ok := errors.As(err, &e)
	require.True(t, ok)
	require.Equal(t, "memory", e.Backend)
	require.NotEmpty(t, e.Remedy)
	require.NotContains(t, err.Error(), "pl4nted")
}

// TestRotation replaces the key while users are served, in the two steps that
// the package comment tells.
func TestRotation(t *testing.T) {
	ctx := t.Context()
	old, fresh := key("2025", 1), key("2026", 2)
	m := persistence.NewMemory()
	servers := []*Keys{newKeys(t, old), newKeys(t, old)}
	require.NoError(t, servers[0].Account("alice", m).Save(ctx, []byte("0")))

	ends := make(chan struct{})
	var wg sync.WaitGroup
	for _, k := range servers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ends:
					return
				default:
				}
				a := k.Account("alice", m)
				_, rev, err := a.LoadRevision(ctx)
				if err == nil {
					_, err = a.SaveIf(ctx, fmt.Append(nil, i), rev)
				}
				if err != nil && !errors.Is(err, persistence.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, k := range servers {
		require.NoError(t, k.Replace(old, fresh))
	}
	for _, k := range servers {
		require.NoError(t, k.Replace(fresh, old))
	}
	close(ends)
	wg.Wait()

	require.NoError(t, servers[1].Account("alice", m).Save(ctx, []byte("last")))
	require.NoError(t, servers[0].Replace(fresh))
	data, err := servers[0].Account("alice", m).Load(ctx)
	require.NoError(t, err, "the old key is not needed any more")
	require.Equal(t, "last", string(data))
	_, err = newKeys(t, old).Account("alice", m).Load(ctx)
	require.ErrorIs(t, err, persistence.ErrKeyMissing)
	require.ErrorContains(t, err, `"2026"`)
	requireRemedy(t, err)
	_, err = newKeys(t, key("2026", 3)).Account("alice", m).Load(ctx)
	require.ErrorIs(t, err, persistence.ErrWrongKey)
	requireRemedy(t, err)
}

func TestNewRefuses(t *testing.T) {
	good := key("a", 1)
	k := newKeys(t, good)
	for name, keys := range map[string][]Key{
		"no id":         {key("", 1)},
		"capitals":      {key("A", 1)},
		"a space":       {key("a b", 1)},
		"too long":      {key(strings.Repeat("a", maxID+1), 1)},
		"begins with -": {key("-a", 1)},
		"no secret":     {{ID: "a"}},
		"a short one":   {NewKey("a", []byte("pl4nted"))},
		"one id twice":  {good, key("a", 2)},
		"a bad older":   {good, key("B", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(keys[0], keys[1:]...)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "pl4nted")
			require.Error(t, k.Replace(keys[0], keys[1:]...))
			require.Equal(t, "a", k.ring.Load().current.ID)
		})
	}
}

func TestSecretsAreCopied(t *testing.T) {
	secret := bytes.Repeat([]byte{1}, 32)
	a := NewKey("a", secret)
	m := persistence.NewMemory()
	k := newKeys(t, a)
	require.NoError(t, k.Account("alice", m).Save(t.Context(), []byte(planted)))
	clear(secret)
	_, err := k.Account("alice", m).Load(t.Context())
	require.NoError(t, err)
}

// vector is data sealed by a fixed key and salt.
func vector(t testing.TB) (stored []byte, find func(string) *Key) {
	h := header{id: "2026-01"}
	var secret [32]byte
	for i := range byte(32) {
		h.salt[i], secret[i] = i, i+32
	}
	k := NewKey(h.id, secret[:])
	stored, err := sealWith(&k, &h, "alice", []byte(planted))
	require.NoError(t, err)
	return stored, func(id string) *Key {
		if id == k.ID {
			return &k
		}
		return nil
	}
}

// TestFormat: what was sealed once opens for ever, and FORMAT.md shows it.
func TestFormat(t *testing.T) {
	stored, find := vector(t)
	line, _, _ := strings.Cut(string(stored), "\n")
	doc, err := os.ReadFile("FORMAT.md")
	require.NoError(t, err)
	require.Contains(t, string(doc), "    "+line+"\n")
	data, err := open(stored, "alice", find)
	require.NoError(t, err)
	require.Equal(t, planted, string(data))
}

// TestEveryChangeIsFound changes each byte, and cuts at each length.
func TestEveryChangeIsFound(t *testing.T) {
	stored, find := vector(t)
	for i := range stored {
		for _, bit := range []byte{1, 0x20, 0x80} {
			changed := bytes.Clone(stored)
			changed[i] ^= bit
			_, err := open(changed, "alice", find)
			require.ErrorIs(t, err, persistence.ErrCorrupt, "byte %d, bit %x", i, bit)
		}
		_, err := open(stored[:i], "alice", find)
		require.ErrorIs(t, err, persistence.ErrCorrupt, "the first %d bytes", i)
	}
	_, err := open(append(bytes.Clone(stored), 'x'), "alice", find)
	require.ErrorIs(t, err, persistence.ErrCorrupt)
}

func TestVersions(t *testing.T) {
	stored, find := vector(t)
	for v, want := range map[string]error{"2": persistence.ErrUnsupportedVersion, "999999999": persistence.ErrUnsupportedVersion,
		"0": persistence.ErrCorrupt, "01": persistence.ErrCorrupt, "": persistence.ErrCorrupt, "1a": persistence.ErrCorrupt, "1234567890": persistence.ErrCorrupt} {
		rest := strings.TrimPrefix(string(stored), version)
		line, body, _ := strings.Cut(rest, "\n")
		line = magic + v + line[:strings.LastIndexByte(line, ' ')+1]
		_, err := open([]byte(line+checksum([]byte(line))+"\n"+body), "alice", find)
		require.ErrorIs(t, err, want, v)
		_, err = open([]byte(magic+v+rest), "alice", find)
		require.ErrorIs(t, err, persistence.ErrCorrupt, "only the version was changed, to %q", v)
	}
	for _, plain := range []string{"", "{}", planted, "tokenkeep-encrypted/1\n", "\n"} {
		_, err := open([]byte(plain), "alice", find)
		require.ErrorIs(t, err, persistence.ErrCorrupt)
		require.NotContains(t, err.Error(), "pl4nted")
	}
}

// FuzzOpen: nothing but what was sealed opens, and a header that parses is
// written again byte for byte.
func FuzzOpen(f *testing.F) {
	stored, find := vector(f)
	f.Add(stored)
	f.Add(stored[:len(stored)-1])
	f.Add([]byte("tokenkeep-sealed/2 x\n"))
	f.Add([]byte(planted))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, line, body, err := parse(data); err == nil {
			require.Equal(t, string(line), string(h.format()))
			require.Equal(t, len(data), len(line)+len(body))
		}
		opened, err := open(data, "alice", find)
		if err == nil {
			require.Equal(t, string(stored), string(data))
			require.Equal(t, planted, string(opened))
			return
		}
		for _, class := range []error{persistence.ErrCorrupt, persistence.ErrKeyMissing, persistence.ErrWrongKey, persistence.ErrUnsupportedVersion} {
			if errors.Is(err, class) {
				return
			}
		}
		t.Errorf("an error of no class: %v", err)
	})
}

func BenchmarkLoad(b *testing.B) {
	k := newKeys(b, key("a", 1))
	a := k.Account("alice", persistence.NewMemory())
	require.NoError(b, a.Save(context.Background(), bytes.Repeat([]byte("x"), 10<<10)))
	b.SetBytes(10 << 10)
	b.ReportAllocs()
	for b.Loop() {
		_, err := a.Load(context.Background())
		require.NoError(b, err)
	}
}
