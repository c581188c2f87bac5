package encrypted

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// sample returns a file of data, and a reader of such files. Without bound the
// reader and the file leave out the additional data: a wrong variant.
func sample(t testing.TB, data string, bound bool) (file []byte, decode func([]byte) error) {
	f := newFile(t, tempPath(t), fixed{"keyring", randomKey()})
	parts, _, err := (*codec)(f).Encode(ctx, []byte(data), nil)
	require.NoError(t, err)
	if bound {
		return parts[0], func(b []byte) error {
			_, _, err := (*codec)(f).Decode(ctx, bytes.Clone(b))
			return err
		}
	}
	h, size, err := parse(parts[0])
	require.NoError(t, err)
	_, d, err := f.unlock(ctx, &h)
	require.NoError(t, err)
	aead, err := d.aead()
	require.NoError(t, err)
	file = aead.Seal(bytes.Clone(parts[0][:size]), d.nonce[:], []byte(data), nil)
	return file, func(b []byte) error {
		h, size, err := parse(b)
		if err != nil {
			return err
		}
		_, d, err := f.unlock(ctx, &h)
		if err != nil {
			return err
		}
		aead, err := d.aead()
		if err != nil {
			return err
		}
		_, err = aead.Open(nil, d.nonce[:], b[size:], nil)
		if err != nil {
			return persistence.ErrCorrupt
		}
		return nil
	}
}

// flips calls try with every file that differs in one bit.
func flips(file []byte, try func(at int, b []byte)) {
	for i := range file {
		for bit := range 8 {
			b := bytes.Clone(file)
			b[i] ^= 1 << bit
			try(i, b)
		}
	}
}

func resummed(b []byte) []byte {
	above, rest, ok := bytes.Cut(b, []byte("\nsum "))
	if !ok || len(rest) < 24 {
		return b
	}
	above = append(bytes.Clone(above), '\n')
	return append(append(above, "sum "+checksum(above)...), rest[22:]...)
}

func TestEveryFlippedBitIsDamage(t *testing.T) {
	file, decode := sample(t, `{"Account":{}}`, true)
	require.NoError(t, decode(file))
	flips(file, func(at int, b []byte) {
		require.Equal(t, "corrupt", classOf(decode(b)), "byte %d", at)
	})

	// Control: without the sum a damaged salt would pass for a wrong key.
	wrongKeys := 0
	flips(file, func(_ int, b []byte) {
		if classOf(decode(resummed(b))) == "wrong-key" {
			wrongKeys++
		}
	})
	require.Greater(t, wrongKeys, 100)
}

// Whoever changes the header can compute its sum; the tag protects it.
func TestNoChangedHeaderIsOpened(t *testing.T) {
	opened := func(file []byte, decode func([]byte) error) (n int) {
		try := func(b []byte) {
			if b = resummed(b); !bytes.Equal(b, file) && decode(b) == nil {
				n++
			}
		}
		flips(file, func(_ int, b []byte) { try(b) })
		line, _, _ := strings.Cut(string(file[len(version)+1:]), "\n")
		for _, more := range []string{" a=1", " previous=keyring/0"} {
			try(bytes.Replace(file, []byte(line), []byte(line+more), 1))
		}
		return n
	}
	file, decode := sample(t, `{"Account":{}}`, true)
	require.NoError(t, decode(file))
	require.Zero(t, opened(file, decode))

	// Control: a reader and a writer that leave out the additional data.
	file, decode = sample(t, `{"Account":{}}`, false)
	require.NoError(t, decode(file))
	require.NotZero(t, opened(file, decode))
}

func TestEveryLengthButItsOwnIsDamage(t *testing.T) {
	for _, data := range []string{"", "x", `{"Account":{}}`} {
		file, decode := sample(t, data, true)
		require.NoError(t, decode(file))
		for n := range file {
			require.Equal(t, "corrupt", classOf(decode(file[:n])), "cut to %d", n)
			require.Equal(t, "corrupt", classOf(decode(file[n+1:])), "without its first %d", n+1)
		}
		for _, more := range []string{"\x00", "\n", " ", string(file)} {
			require.Equal(t, "corrupt", classOf(decode(append(bytes.Clone(file), more...))), "longer by %q", more)
			require.Equal(t, "corrupt", classOf(decode(append([]byte(more), file...))), "%q before it", more)
		}
	}
}

func TestNoTwoSavesShareASalt(t *testing.T) {
	f := newFile(t, tempPath(t), Raw(randomKey()))
	salts, nonces, keys := map[[32]byte]bool{}, map[[12]byte]bool{}, map[[32]byte]bool{}
	for range 1000 {
		parts, rev, err := (*codec)(f).Encode(ctx, []byte("the same"), nil)
		require.NoError(t, err)
		h, _, err := parse(parts[0])
		require.NoError(t, err)
		require.Equal(t, encode(h.salt[:]), rev)
		_, d, err := f.unlock(ctx, &h)
		require.NoError(t, err)
		salts[h.salt], nonces[d.nonce], keys[d.key] = true, true, true
	}
	require.Len(t, salts, 1000)
	require.Len(t, nonces, 1000)
	require.Len(t, keys, 1000)
}

// The three outputs differ, and depend on each input; names that would be one
// if they were joined carelessly are two.
func TestDerive(t *testing.T) {
	key, salt := bytes.Repeat([]byte{1}, 32), [32]byte{2}
	seen := map[string]bool{}
	add := func(key []byte, salt [32]byte, name string) {
		d, err := derive(key, &salt, name)
		require.NoError(t, err)
		require.NotEqual(t, d.key, d.commit)
		for _, b := range [][]byte{d.key[:], d.nonce[:], d.commit[:]} {
			require.False(t, seen[string(b)])
			seen[string(b)] = true
		}
	}
	for _, name := range []string{"", "a", "b", "A", "a\x00", "key\x00a", "\x00commit\x00a"} {
		add(key, salt, name)
		add(key, [32]byte{3}, name)
		add(bytes.Repeat([]byte{4}, 32), salt, name)
	}
	_, err := derive(key[:31], &salt, "")
	require.Error(t, err)
}

func TestPreviousIsPutInItsPlace(t *testing.T) {
	for ref, want := range map[string]string{
		"id":                         "id previous=keyring/1",
		"id m=1 p=2 salt=3 t=4":      "id m=1 p=2 previous=keyring/1 salt=3 t=4",
		"id p-a=1 prev=1":            "id p-a=1 prev=1 previous=keyring/1",
		"id previous-2=1 previous2=": "id previous=keyring/1 previous-2=1 previous2=",
		"id a=1":                     "id a=1 previous=keyring/1",
	} {
		got := joinPrevious(ref, "keyring/1")
		require.Equal(t, want, got)
		if validRef(ref) {
			require.True(t, validRef(got), got)
			own, previous, ok := splitPrevious(got)
			require.True(t, ok)
			require.Equal(t, ref, own)
			require.Equal(t, "keyring/1", previous)
		}
	}
}

// The AEAD is AES-256-GCM: Wycheproof's vectors for keys of 256 bits, nonces of
// 96 and tags of 128 pass through the code that seals and opens files.
func TestWycheproof(t *testing.T) {
	var file struct {
		TestGroups []struct {
			IVSize, KeySize, TagSize int
			Tests                    []struct {
				TcID                                        int
				Comment, Key, IV, AAD, Msg, CT, Tag, Result string
			}
		}
	}
	b, err := os.ReadFile(filepath.Join("..", "testdata", "wycheproof", "aes_gcm_test.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &file))
	tests := 0
	for _, g := range file.TestGroups {
		if g.KeySize != 256 || g.IVSize != 96 || g.TagSize != 128 {
			continue
		}
		for _, tc := range g.Tests {
			tests++
			raw := func(s string) []byte {
				b, err := hex.DecodeString(s)
				require.NoError(t, err)
				return b
			}
			d := &derived{key: [32]byte(raw(tc.Key)), nonce: [12]byte(raw(tc.IV))}
			aad, sealed := raw(tc.AAD), append(raw(tc.CT), raw(tc.Tag)...)
			data, err := d.open(append(bytes.Clone(aad), sealed...), len(aad))
			if tc.Result == "invalid" {
				require.Equal(t, "corrupt", classOf(err), "%d: %s", tc.TcID, tc.Comment)
				continue
			}
			require.NoError(t, err, "%d: %s", tc.TcID, tc.Comment)
			require.Equal(t, tc.Msg, fmt.Sprintf("%x", data))
			again, err := d.sealAfter(aad, raw(tc.Msg))
			require.NoError(t, err)
			require.Equal(t, append(aad, sealed...), again)
		}
	}
	require.GreaterOrEqual(t, tests, 60)
}

// FuzzParse: whatever parses is written the same, and nothing panics.
func FuzzParse(f *testing.F) {
	for _, v := range allVectors(f) {
		f.Add(v.file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		h, size, err := parse(file)
		if err != nil {
			if c := classOf(err); c != "corrupt" && c != "unsupported-version" {
				t.Fatalf("%s: %v", c, err)
			}
			return
		}
		if size > maxHeader || !bytes.Equal(file[:size], h.format()) {
			t.Fatalf("%q is written as %q", file[:size], h.format())
		}
		if !validRef(h.ref) || strings.Contains(h.ref, " "+previousParam+"=") {
			t.Fatalf("reference %q", h.ref)
		}
	})
}

// FuzzOpen: no file but the one that was written is opened; the sum is put
// right, so that what lies behind it is reached.
func FuzzOpen(f *testing.F) {
	for _, v := range allVectors(f) {
		f.Add(v.file, false)
		f.Add(v.file, true)
	}
	good, decode := sample(f, `{"Account":{}}`, true)
	f.Add(good, false)
	known := map[string]bool{string(good): true}
	f.Fuzz(func(t *testing.T, file []byte, resum bool) {
		if resum {
			file = resummed(file)
		}
		switch c := classOf(decode(file)); c {
		case "corrupt", "wrong-key", "unsupported-version":
		case "ok":
			if !known[string(file)] {
				t.Fatalf("opened %q", file)
			}
		default:
			t.Fatalf("class %s", c)
		}
	})
}
