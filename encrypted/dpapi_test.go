package encrypted

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// user is what DPAPI is to one user: it shows our own mapping and is no evidence
// about Windows. What it makes is tied to the user's name and the entropy.
func user(name string) *dpapi {
	mask := func(entropy []byte) []byte {
		sum := sha256.Sum256(append([]byte(name+"\x00"), entropy...))
		return sum[:]
	}
	xor := func(a, b []byte) []byte {
		out := make([]byte, len(a))
		for i := range a {
			out[i] = a[i] ^ b[i]
		}
		return out
	}
	return &dpapi{
		protect: func(data, entropy []byte) ([]byte, error) {
			return append(mask(entropy)[:16], xor(data, mask(append(entropy, 0)))...), nil
		},
		unprotect: func(data, entropy []byte) ([]byte, error) {
			if !bytes.HasPrefix(data, mask(entropy)[:16]) {
				return nil, fault(remedyDPAPI, "%w", persistence.ErrWrongKey)
			}
			return xor(data[16:], mask(append(entropy, 0))), nil
		},
	}
}

func TestDPAPI(t *testing.T) {
	path := tempPath(t)
	f := newFile(t, path, user("alice"))
	require.NoError(t, f.Prove(ctx))
	require.NoFileExists(t, path)
	require.NoError(t, f.Save(ctx, []byte("one")))
	require.NoError(t, f.Save(ctx, []byte("two")))
	mustLoad(t, newFile(t, path, user("alice")), "two")
	h := headerOf(t, path)
	require.Equal(t, "dpapi", h.source)

	// Another user, or a blob that was moved to another id.
	moved := strings.Replace(h.ref, h.ref[:8], "00000000", 1)
	require.NotEqual(t, h.ref, moved)
	for name, c := range map[string]struct{ ref, user string }{"another user": {h.ref, "bob"}, "another id": {moved, "alice"}} {
		t.Run(name, func(t *testing.T) {
			bad := *h
			bad.ref = c.ref
			file := bad.format()
			path := tempPath(t)
			require.NoError(t, os.WriteFile(path, append(file, make([]byte, 40)...), 0o600))
			f := newFile(t, path, user(c.user))
			requireError(t, "wrong-key", f.Prove(ctx))
			requireError(t, "wrong-key", f.Save(ctx, []byte("new")))
			require.Equal(t, file, readFile(t, path)[:len(file)])
		})
	}

	// Two keys are two, and a rotation keeps the data.
	require.NoError(t, f.Rotate(ctx, user("alice")))
	require.NotEqual(t, h.ref, headerOf(t, path).ref)
	require.Equal(t, h.keyName(), headerOf(t, path).previous)
	mustLoad(t, newFile(t, path, user("alice")), "two")
	require.NoError(t, f.Rotate(ctx, user("alice")))
	require.NoError(t, f.Delete(ctx))
}

func TestDPAPIThatFails(t *testing.T) {
	planted := errors.New("the system's own error")
	fails := func([]byte, []byte) ([]byte, error) {
		return nil, fault("Do something.", "%w: %w", persistence.ErrUnavailable, planted)
	}
	for name, s := range map[string]*dpapi{
		"encrypts nothing":            {fails, user("alice").unprotect},
		"does not decrypt its own":    {user("alice").protect, user("bob").unprotect},
		"fails to decrypt its own":    {user("alice").protect, fails},
		"decrypts to something else":  {user("alice").protect, func([]byte, []byte) ([]byte, error) { return make([]byte, 32), nil }},
		"takes more than a value has": {func([]byte, []byte) ([]byte, error) { return make([]byte, 1537), nil }, fails},
		"returns nothing":             {func([]byte, []byte) ([]byte, error) { return nil, nil }, fails},
	} {
		t.Run(name, func(t *testing.T) {
			path := tempPath(t)
			requireError(t, "unavailable", newFile(t, path, s).Prove(ctx))
			requireError(t, "unavailable", newFile(t, path, s).Save(ctx, []byte("x")))
			require.NoFileExists(t, path)
		})
	}

	// What is decrypted may be of any length, and no key.
	path := tempPath(t)
	require.NoError(t, newFile(t, path, user("alice")).Save(ctx, []byte("x")))
	short := &dpapi{nil, func([]byte, []byte) ([]byte, error) { return []byte("planted"), nil }}
	err := newFile(t, path, short).Prove(ctx)
	requireError(t, "wrong-key", err)
	require.NotContains(t, err.Error(), "planted")
}

// A call that Windows does not let return is left behind.
func TestDPAPIObeysItsContext(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	hangs := func([]byte, []byte) ([]byte, error) { <-release; return nil, nil }
	path := tempPath(t)
	require.NoError(t, newFile(t, path, user("alice")).Save(ctx, []byte("x")))
	for _, s := range []*dpapi{{hangs, hangs}, {user("alice").protect, hangs}} {
		for _, path := range []string{path, tempPath(t)} {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			require.ErrorIs(t, newFile(t, path, s).Prove(ended), context.Canceled)
		}
	}
}

func TestDPAPIReference(t *testing.T) {
	s := &dpapi{nil, func(data, _ []byte) ([]byte, error) { return bytes.Repeat(data, 32), nil }}
	key, err := s.Key(ctx, "0a blob=QQ")
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte("A"), 32), key)
	for _, ref := range []string{"0a", "0a blob=", "0a blob=QR", "0a blob=QQ==", "0a blob=Q.", "0a blob=QQ z=1", "0a a=1 blob=QQ", "0a bloc=QQ", " blob=QQ", "0a blob=QQ blob=QQ"} {
		_, err := s.Key(ctx, ref)
		require.ErrorIs(t, err, persistence.ErrCorrupt, ref)
	}
}

func TestDPAPIElsewhere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it is there")
	}
	path := tempPath(t)
	f := newFile(t, path, DPAPI())
	for _, err := range []error{f.Prove(ctx), f.Save(ctx, []byte("x"))} {
		requireError(t, "unavailable", err)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "Windows")
	}
	require.NoFileExists(t, path)

	// A file that was copied from Windows stays as it is.
	require.NoError(t, newFile(t, path, user("alice")).Save(ctx, []byte("x")))
	before := readFile(t, path)
	_, err := f.Load(ctx)
	for _, err := range []error{err, f.Prove(ctx), f.Save(ctx, []byte("y"))} {
		requireError(t, "unavailable", err)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	require.Equal(t, before, readFile(t, path))
}
