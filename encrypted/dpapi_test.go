package encrypted

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	system "github.com/tokenkeep/tokenkeep/internal/dpapi"
	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// blobHead is how a blob of DPAPI begins, with those flags. It is the layout that
// others have published, and no evidence about Windows.
func blobHead(flags uint32) []byte {
	head := binary.LittleEndian.AppendUint32(nil, blobVersion)
	head = append(head, make([]byte, 16)...)         // the provider
	head = binary.LittleEndian.AppendUint32(head, 1) // version of the master key
	head = append(head, make([]byte, 16)...)         // the master key's id
	return binary.LittleEndian.AppendUint32(head, flags)
}

// user is what DPAPI is to one user: it shows our own mapping and is no evidence
// about Windows. What it makes is tied to the user's name and the entropy.
func user(name string) *dpapi { return userWithFlags(name, 0) }

func userWithFlags(name string, flags uint32) *dpapi {
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
			return slices.Concat(blobHead(flags), mask(entropy)[:16], xor(data, mask(append(entropy, 0)))), nil
		},
		unprotect: func(data, entropy []byte) ([]byte, error) {
			data = data[blobHeader:]
			if !bytes.HasPrefix(data, mask(entropy)[:16]) {
				return nil, &system.Refused{Err: errors.New("the data is invalid")}
			}
			return xor(data[16:], mask(append(entropy, 0))), nil
		},
	}
}

func fakeDPAPI(protect, unprotect func(data, entropy []byte) ([]byte, error)) *dpapi {
	return &dpapi{protect: protect, unprotect: unprotect}
}

func TestDPAPI(t *testing.T) {
	path := tempPath(t)
	f := newFile(t, path, user("alice"))
	require.NoError(t, f.Check(ctx))
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
			requireError(t, "wrong-key", f.Check(ctx))
			requireError(t, "wrong-key", f.Save(ctx, []byte("new")))
			require.Equal(t, file, readFile(t, path)[:len(file)])
		})
	}

	// Two keys are two, and a rotation keeps the data.
	require.NoError(t, f.Rotate(ctx, user("alice")))
	require.NotEqual(t, h.ref, headerOf(t, path).ref)
	require.Equal(t, h.keyName(), headerOf(t, path).file.previous)
	mustLoad(t, newFile(t, path, user("alice")), "two")
	require.NoError(t, f.Rotate(ctx, user("alice")))
	require.NoError(t, f.Delete(ctx))
}

func TestDPAPIThatFails(t *testing.T) {
	planted := errors.New("the system's own error")
	fails := func([]byte, []byte) ([]byte, error) {
		return nil, remedy.Errorf("Do something.", "%w: %w", persistence.ErrUnavailable, planted)
	}
	for name, s := range map[string]*dpapi{
		"encrypts nothing":            fakeDPAPI(fails, user("alice").unprotect),
		"does not decrypt its own":    fakeDPAPI(user("alice").protect, user("bob").unprotect),
		"fails to decrypt its own":    fakeDPAPI(user("alice").protect, fails),
		"decrypts to something else":  fakeDPAPI(user("alice").protect, func([]byte, []byte) ([]byte, error) { return make([]byte, 32), nil }),
		"takes more than a value has": fakeDPAPI(func([]byte, []byte) ([]byte, error) { return make([]byte, 1537), nil }, fails),
		"returns nothing":             fakeDPAPI(func([]byte, []byte) ([]byte, error) { return nil, nil }, fails),
	} {
		t.Run(name, func(t *testing.T) {
			path := tempPath(t)
			requireError(t, "unavailable", newFile(t, path, s).Check(ctx))
			requireError(t, "unavailable", newFile(t, path, s).Save(ctx, []byte("x")))
			require.NoFileExists(t, path)
		})
	}

	// What is decrypted may be of any length, and no key.
	path := tempPath(t)
	require.NoError(t, newFile(t, path, user("alice")).Save(ctx, []byte("x")))
	short := fakeDPAPI(nil, func([]byte, []byte) ([]byte, error) { return []byte("planted"), nil })
	err := newFile(t, path, short).Check(ctx)
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
	for _, s := range []*dpapi{fakeDPAPI(hangs, hangs), fakeDPAPI(user("alice").protect, hangs)} {
		for _, path := range []string{path, tempPath(t)} {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			require.ErrorIs(t, newFile(t, path, s).Check(ended), context.Canceled)
		}
	}
}

func TestDPAPIReference(t *testing.T) {
	s := fakeDPAPI(nil, func(data, _ []byte) ([]byte, error) { return bytes.Repeat(data[blobHeader:], 32), nil })
	key, err := s.Key(ctx, "0a blob="+encode(append(blobHead(0), 'A')))
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte("A"), 32), key)
	for _, ref := range []string{"0a", "0a blob=", "0a blob=QQ", "0a blob=" + encode(blobHead(0)[:43]), "0a blob=QR", "0a blob=QQ==", "0a blob=Q.", "0a blob=QQ z=1", "0a a=1 blob=QQ", "0a bloc=QQ", " blob=QQ", "0a blob=QQ blob=QQ"} {
		_, err := s.Key(ctx, ref)
		require.ErrorIs(t, err, persistence.ErrCorrupt, ref)
	}
}

// CryptUnprotectData decrypts what was protected for the whole machine, and every
// user of the machine can protect something so.
func TestDPAPIOfTheWholeMachineIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(blob []byte)
		class  string
	}{
		"for the machine":      {func(b []byte) { b[40] |= 0x04 }, "wrong-key"},
		"for the system":       {func(b []byte) { b[43] |= 0x20 }, "wrong-key"},
		"another version":      {func(b []byte) { b[0] = 2 }, "unsupported-version"},
		"control: its own":     {func([]byte) {}, "ok"},
		"control: other flags": {func(b []byte) { b[40] |= 0x01 }, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			// Everybody can make all of this: a key, its blob, and a whole file.
			mallory := user("mallory")
			protect := mallory.protect
			mallory.protect = func(data, entropy []byte) ([]byte, error) {
				blob, err := protect(data, entropy)
				c.change(blob)
				return blob, err
			}
			id, key := newID(), randomKey()
			blob, err := mallory.protect(key, []byte(version+"\x00dpapi\x00"+id))
			require.NoError(t, err)
			h := &header{source: "dpapi", ref: id + " " + blobParam + encode(blob)}
			d, err := derive(key, h, "contoso-cli")
			require.NoError(t, err)
			file, err := d.seal(h, []byte("planted"), newMemory)
			require.NoError(t, err)
			path := tempPath(t)
			require.NoError(t, os.WriteFile(path, file, 0o600))

			victim := fakeDPAPI(user("victim").protect, mallory.unprotect) // Windows decrypts it for everybody
			f := newFile(t, path, victim)
			_, err = f.Load(ctx)
			if c.class == "ok" {
				mustLoad(t, f, "planted")
				return
			}
			requireError(t, c.class, err)
			requireError(t, c.class, f.Check(ctx))
			requireError(t, c.class, f.Save(ctx, []byte("new")))
			require.Equal(t, file, readFile(t, path))
		})
	}

	// A system whose own blobs are not recognised does not get a key to keep.
	requireError(t, "unavailable", newFile(t, tempPath(t), userWithFlags("alice", flagMachine)).Check(ctx))
}

// Over SSH without a password Windows refuses to decrypt although the file is
// sound. Nobody is told to remove it.
func TestDPAPIInASessionWithoutTheUsersKeys(t *testing.T) {
	path := tempPath(t)
	require.NoError(t, newFile(t, path, user("alice")).Save(ctx, []byte("one")))
	refuses := func([]byte, []byte) ([]byte, error) { return nil, &system.Refused{Err: errors.New("bad key state")} }
	unavailable := func([]byte, []byte) ([]byte, error) {
		return nil, remedy.Errorf("Do something.", "%w", persistence.ErrUnavailable)
	}
	for name, session := range map[string]*dpapi{
		"protects nothing":         fakeDPAPI(unavailable, refuses),
		"decrypts nothing":         fakeDPAPI(user("alice").protect, refuses),
		"protects and decrypts no": fakeDPAPI(refuses, refuses),
	} {
		err := newFile(t, path, session).Check(ctx)
		requireError(t, "unavailable", err)
		require.NotContains(t, err.Error(), "remove", name)
		require.ErrorContains(t, err, "sound", name)
	}
	// Control: where DPAPI works here and now, the key is another user's.
	err := newFile(t, path, user("bob")).Check(ctx)
	requireError(t, "wrong-key", err)
	require.ErrorContains(t, err, "remove the file")
	mustLoad(t, newFile(t, path, user("alice")), "one")
}

func TestDPAPIElsewhere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it is there")
	}
	path := tempPath(t)
	f := newFile(t, path, DPAPI())
	for _, err := range []error{f.Check(ctx), f.Save(ctx, []byte("x"))} {
		requireError(t, "unavailable", err)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "Windows")
	}
	require.NoFileExists(t, path)

	// A file that was copied from Windows stays as it is.
	require.NoError(t, newFile(t, path, user("alice")).Save(ctx, []byte("x")))
	before := readFile(t, path)
	_, err := f.Load(ctx)
	for _, err := range []error{err, f.Check(ctx), f.Save(ctx, []byte("y"))} {
		requireError(t, "unavailable", err)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	require.Equal(t, before, readFile(t, path))
}

// The number of Windows' error is told also where another error is made of it.
func TestCodesOfDPAPI(t *testing.T) {
	const badKeyState = syscall.Errno(0x8009000B & 0x7FFFFFFF) // the test also runs on 32 bits
	number := rawcode.Number(runtime.GOOS, badKeyState)
	refuse := func([]byte, []byte) ([]byte, error) {
		return nil, rawcode.Copy(badKeyState, "CryptUnprotectData", &system.Refused{Err: badKeyState})
	}
	ref, _, err := user("alice").NewKey(t.Context(), newID())
	require.NoError(t, err)
	works := user("alice")
	other := "f" + ref[1:]
	if other == ref {
		other = "e" + ref[1:]
	}
	for name, s := range map[string]*dpapi{
		"another user's key":   {protect: works.protect, unprotect: func(data, entropy []byte) ([]byte, error) { return userOrRefuse(works, refuse, data, entropy) }},
		"nothing is decrypted": {protect: works.protect, unprotect: refuse},
	} {
		_, err := s.Key(t.Context(), other)
		require.Error(t, err)
		require.Contains(t, rawcode.Of(err), "CryptUnprotectData: "+number, name)
	}
	_, _, err = (&dpapi{protect: works.protect, unprotect: refuse}).NewKey(t.Context(), newID())
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Equal(t, []string{"CryptUnprotectData: " + number}, rawcode.Of(err))
}

// userOrRefuse is DPAPI that refuses with a number.
func userOrRefuse(of *dpapi, refuse func(data, entropy []byte) ([]byte, error), data, entropy []byte) ([]byte, error) {
	out, err := of.unprotect(data, entropy)
	if err != nil {
		return refuse(data, entropy)
	}
	return out, nil
}
