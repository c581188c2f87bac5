package encrypted

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestDPAPIOfTheSystem(t *testing.T) {
	id := newID()
	ref, key, err := DPAPI().NewKey(ctx, id)
	require.NoError(t, err)
	require.Len(t, key, keySize)
	require.True(t, validRef(ref))
	t.Logf("the reference has %d characters", len(ref))
	blob, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(ref, id+" "+blobParam))
	require.NoError(t, err)
	require.False(t, bytes.Contains(blob, key), "the key is in the header in plain")

	back, err := DPAPI().Key(ctx, ref)
	require.NoError(t, err)
	require.Equal(t, key, back)

	_, another, err := DPAPI().NewKey(ctx, id)
	require.NoError(t, err)
	require.NotEqual(t, key, another)

	require.NoError(t, checkBlob(blob), "the system's own blobs have the layout that is expected")
	for name, c := range map[string]struct{ ref, class string }{
		"another id": {newID() + " " + blobParam + encode(blob), "wrong-key"},
		"cut":        {id + " " + blobParam + encode(blob[:len(blob)-7]), "wrong-key"},
		"no blob":    {id + " " + blobParam + encode([]byte("something else altogether")), "corrupt"},
	} {
		_, err := DPAPI().Key(ctx, c.ref)
		require.Equal(t, c.class, classOf(err), "%s: %v", name, err)
	}
}

// Wherever the encrypted key was changed, with a sum that is right, the file
// does not open and is not replaced. Where Windows itself does not notice (Wine 8
// misses some), the commitment does.
func TestDPAPITampered(t *testing.T) {
	path := tempPath(t)
	require.NoError(t, newFile(t, path, DPAPI()).Save(ctx, []byte("data")))
	good := readFile(t, path)
	h, size, err := parse(good)
	require.NoError(t, err)
	id, text, _ := strings.Cut(h.ref, " "+blobParam)
	blob, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	harmless := 0
	for i := 0; i < len(blob); i += 13 {
		changed := bytes.Clone(blob)
		changed[i] ^= 1
		bad := h
		bad.ref = id + " " + blobParam + encode(changed)
		file := append(bad.format(), good[size:]...)
		require.NoError(t, os.WriteFile(path, file, 0o600))
		f := newFile(t, path, DPAPI())
		if key, err := DPAPI().Key(ctx, bad.ref); err == nil {
			if original, err := DPAPI().Key(ctx, h.ref); err == nil && bytes.Equal(key, original) {
				harmless++ // the same key all the same: the commitment covers the key line
			}
		}
		class := "wrong-key"
		if i < 4 { // the version
			class = "unsupported-version"
		}
		_, err := f.Load(ctx)
		requireError(t, class, err)
		requireError(t, class, f.Save(ctx, []byte("new")))
		require.Equal(t, file, readFile(t, path))
	}
	t.Logf("%d changes did not change the key", harmless)
}

// A key that Windows itself has protected for the whole machine is refused, although
// Windows decrypts it. With the flag taken away, Windows does not.
func TestDPAPIMachineWide(t *testing.T) {
	id, key := newID(), []byte(randomKey())
	entropy := []byte(version + "\x00dpapi\x00" + id)
	toBlob := func(b []byte) *windows.DataBlob { return &windows.DataBlob{Size: uint32(len(b)), Data: &b[0]} }
	var out windows.DataBlob
	require.NoError(t, windows.CryptProtectData(toBlob(key), nil, toBlob(entropy), 0, nil,
		windows.CRYPTPROTECT_UI_FORBIDDEN|flagMachine, &out))
	blob := bytes.Clone(unsafe.Slice(out.Data, out.Size))
	back, err := unprotect(blob, entropy)
	require.NoError(t, err, "Windows decrypts it for everybody")
	require.Equal(t, key, back)
	ref := func(blob []byte) string { return id + " " + blobParam + encode(blob) }
	if env.Wine() {
		// Its flags are in another place. The layout here is Windows'.
		t.Logf("flags: %X", blob[blobFlags:blobHeader])
		return
	}
	_, err = DPAPI().Key(ctx, ref(blob))
	require.Equal(t, "wrong-key", classOf(err), "%v", err)
	require.ErrorContains(t, err, "all users of this machine")
	blob[blobFlags] &^= flagMachine
	_, err = DPAPI().Key(ctx, ref(blob))
	require.Equal(t, "wrong-key", classOf(err), "%v", err)
}

// Processes that start at once where nothing is stored settle on one key.
func TestDPAPIOfSeveralProcesses(t *testing.T) {
	dir := t.TempDir()
	var children []*exec.Cmd
	for i := range 4 {
		c := child(t, "dpapi", dir, fmt.Sprint("TOKENKEEP_TEST_ID=", i))
		require.NoError(t, c.Start())
		children = append(children, c)
	}
	for _, c := range children {
		require.NoError(t, c.Wait())
	}
	data, err := newFile(t, filepath.Join(dir, "cache"), DPAPI()).Load(ctx)
	require.NoError(t, err)
	require.Equal(t, 4*10, bytes.Count(data, []byte("\n")))
}
