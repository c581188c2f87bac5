package keyring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// plain wraps a keyring in the simplest way. It has the three methods and no other.
type plain struct{ Keyring }

// telling adds its own words to each error, as a program with a log does.
type telling struct{ of Keyring }

func (k telling) Get(ctx context.Context, service, user string) (string, error) {
	secret, err := k.of.Get(ctx, service, user)
	return secret, told(err)
}

func (k telling) Set(ctx context.Context, service, user, secret string) error {
	return told(k.of.Set(ctx, service, user, secret))
}

func (k telling) Delete(ctx context.Context, service, user string) error {
	return told(k.of.Delete(ctx, service, user))
}

func told(err error) error {
	if err != nil {
		err = errors.Join(errors.New("our keyring"), fmt.Errorf("told: %w", err))
	}
	return err
}

// believing takes what is not found for gone: it returns an error of its own. It is the
// control of the tests with wrappers.
type believing struct{ Keyring }

func (k believing) Get(ctx context.Context, service, user string) (string, error) {
	secret, err := k.Keyring.Get(ctx, service, user)
	if errors.Is(err, persistence.ErrNotFound) {
		err = persistence.ErrNotFound
	}
	return secret, err
}

// wrappers returns a keyring and what programs make of it.
func wrappers(k Keyring) map[string]Keyring {
	return map[string]Keyring{"": k, "plain": plain{k}, "telling": telling{k}, "twice": plain{telling{k}}}
}

// elsewhere is a located keyring, of a place of its own, that is never certain.
type elsewhere struct{ Limited }

func (elsewhere) Get(context.Context, string, string) (string, error) {
	return "", persistence.ErrNotFound
}

func (elsewhere) place() string { return "this session" }

func (elsewhere) seesAll(_ context.Context, samePlace bool) (bool, error) {
	return false, newTrouble(NoSession, fmt.Sprintf("the same place: %t", samePlace), "Look elsewhere.")
}

// inMemory is the platform's part of the kernel's keyring, whose boot a test chooses.
type inMemory struct {
	Limited
	items map[string]string
	boot  string
}

func (k *inMemory) Get(_ context.Context, service, user string) (string, error) {
	if secret, ok := k.items[service+user]; ok {
		return secret, nil
	}
	return "", persistence.ErrNotFound
}

func (k *inMemory) Set(_ context.Context, service, user, secret string) error {
	k.items[service+user] = secret
	return nil
}

func (*inMemory) ItemLimit(string, string) int { return 0 }

func (k *inMemory) place() string { return k.boot }

func (*inMemory) seesAll(_ context.Context, samePlace bool) (bool, error) {
	if samePlace {
		return false, nil
	}
	return false, newTrouble(NoSession, "the same place: false", "Sign in again.")
}

// Each ability that a keyring of this package has beside those of a Keyring, and what a
// wrapper without it does: it never takes a key for gone that may be elsewhere.
func TestPlainWrappersAreSafe(t *testing.T) {
	abilities := map[string]func(t *testing.T){
		// The word in the header decides by which rule a key is gone. Where it is not the
		// kernel's, the reference says for which boot the key was stored.
		"KeySource": func(t *testing.T) {
			kernel := &inMemory{items: map[string]string{}, boot: "first"}
			k := &kernelKeyring{system{kernel}}
			for name, w := range wrappers(k) {
				kernel.boot = "first"
				keys, word := NewKeys(w, "app"), map[bool]string{true: "kernel", false: "keyring"}[name == ""]
				require.Equal(t, word, keys.Source())
				ref, _, err := keys.NewKey(t.Context(), "0123")
				require.NoError(t, err)
				require.Equal(t, name == "", ref == "0123", "in a file with the word kernel, the header has the boot")
				clear(kernel.items)
				_, err = keys.Key(t.Context(), ref)
				require.ErrorIs(t, err, persistence.ErrKeyMissing, name)
				for _, boot := range []string{"second", "", "kernel"} {
					if kernel.boot = boot; name == "" {
						_, err = keys.Key(t.Context(), ref)
						require.ErrorIs(t, err, persistence.ErrKeyMissing, "control: package encrypted decides")
						continue
					}
					for _, ref := range []string{ref, refAt("0123", "a third")} {
						_, err = keys.Key(t.Context(), ref)
						require.NotErrorIs(t, err, persistence.ErrKeyMissing, name)
						require.ErrorIs(t, err, persistence.ErrUnavailable, name)
						require.NotEmpty(t, persistence.Remedy(err))
					}
				}
			}
			_, err := NewKeys(believing{k}, "app").Key(t.Context(), refAt("0123", "a third"))
			require.ErrorIs(t, err, persistence.ErrKeyMissing, "control")
		},
		// Without a limit, a value is not split, and is refused whole.
		"ItemLimit": func(t *testing.T) {
			k, f := newFakeSecurity(t)
			lock := persistence.NewFileLock(t.TempDir() + "/lock")
			v, err := New(plain{k}, "app", "alice", lock)
			require.NoError(t, err)
			require.NoError(t, v.Save(t.Context(), []byte("old")))
			items := maps.Clone(f.items)
			require.ErrorIs(t, v.Save(t.Context(), []byte(strings.Repeat("x", 10_000))), persistence.ErrTooLarge)
			require.Equal(t, items, f.items)
			data, err := v.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, "old", string(data))
			whole, err := New(k, "app", "bob", lock)
			require.NoError(t, err)
			require.NoError(t, whole.Save(t.Context(), []byte(strings.Repeat("x", 10_000))), "control")
		},
		// Nothing in this module lists items to find out what is gone.
		"List": nil,
		// tokenkeep.Open uses one keyring less.
		"OperatingSystem": nil,
		// tokenkeep doctor has one line less.
		"Keychains": nil,
		// A wrapper prints what is in it, which has these.
		"Format":   nil,
		"LogValue": nil,
	}
	needed := reflect.TypeFor[Keyring]()
	for _, k := range []Keyring{&systemLister{}, &kernelLister{}} {
		for i := range reflect.TypeOf(k).NumMethod() {
			name := reflect.TypeOf(k).Method(i).Name
			if _, ok := needed.MethodByName(name); !ok {
				require.Contains(t, abilities, name, "decide what a wrapper without it does")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(abilities)) {
		if check := abilities[name]; check != nil {
			t.Run(name, check)
		}
	}
	t.Run("what is not exported", func(t *testing.T) {
		k, _ := newFakeSecurity(t)
		k.platform = elsewhere{k.platform}
		for name, w := range wrappers(k) {
			for ref, same := range map[string]bool{"0123": false, refAt("0123", "this session"): true, refAt("0123", "another"): false} {
				_, err := NewKeys(w, "app").Key(t.Context(), ref)
				require.NotErrorIs(t, err, persistence.ErrKeyMissing, name)
				require.Equal(t, NoSession, SituationOf(err), name)
				require.ErrorContains(t, err, fmt.Sprintf("the same place: %t", same), name)
			}
		}
		_, err := NewKeys(believing{k}, "app").Key(t.Context(), "0123")
		require.ErrorIs(t, err, persistence.ErrKeyMissing, "control")
	})
}

// What is stored through a wrapper has the place in its reference, also after a crash
// between storing it and writing it down.
func TestPlainWrappersKeepThePlace(t *testing.T) {
	mac, _ := newFakeSecurity(t)
	mac.platform = somewhere{mac.platform}
	for name, w := range wrappers(mac) {
		id := "id-" + name
		ref, key, err := NewKeys(w, "app").NewKey(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, refAt(id, "this session"), ref, name)
		require.NotEqual(t, id, ref)
		again, same, err := NewKeys(w, "app").NewKey(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, ref, again, name)
		require.Equal(t, key, same)
	}
	ref, _, err := NewKeys(believing{mac}, "app").NewKey(t.Context(), "control")
	require.NoError(t, err)
	require.Equal(t, "control", ref)
}

// somewhere is a located keyring of a place of its own.
type somewhere struct{ Limited }

func (somewhere) place() string { return "this session" }

func (somewhere) seesAll(context.Context, bool) (bool, error) { return false, nil }
