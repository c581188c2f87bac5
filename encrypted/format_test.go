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

// sample returns a file of data, and a reader of such files.
func sample(t testing.TB, data string) (file []byte, decode func([]byte) error) {
	f := newFile(t, tempPath(t), fixed{"keyring", randomKey()})
	parts, _, err := (*fileCodec)(f).Encode(ctx, []byte(data), nil)
	require.NoError(t, err)
	return parts[0], func(b []byte) error {
		_, _, err := (*fileCodec)(f).Decode(ctx, bytes.Clone(b))
		return err
	}
}

// unboundSample is sample for wrong variants of the format: the commitment covers
// the key line or not, and the tag covers the header or not.
func unboundSample(t testing.TB, data string, commitment, tag bool) (file []byte, decode func([]byte) error) {
	key := randomKey()
	keysOf := func(h *header) *derived {
		if !commitment {
			h = &header{salt: h.salt}
		}
		d, err := derive(key, h, "")
		require.NoError(t, err)
		return d
	}
	additional := func(head []byte) []byte {
		if !tag {
			return nil
		}
		return head
	}
	h := &header{source: "keyring", ref: newID(), salt: [32]byte(randomKey())}
	d := keysOf(h)
	h.commit = d.commit
	aead, err := d.aead()
	require.NoError(t, err)
	head := h.format()
	file = aead.Seal(bytes.Clone(head), d.nonce[:], []byte(data), additional(head))
	return file, func(b []byte) error {
		h, size, err := parse(b)
		if err != nil {
			return err
		}
		d := keysOf(&h)
		if !d.commits(&h) {
			return persistence.ErrWrongKey
		}
		aead, err := d.aead()
		require.NoError(t, err)
		if _, err = aead.Open(nil, d.nonce[:], b[size:], additional(b[:size])); err != nil {
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
	file, decode := sample(t, `{"Account":{}}`)
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

// Everybody can compute the sum of a changed header. The commitment covers the key
// line, and the tag covers the whole header.
func TestNoChangedHeaderIsOpened(t *testing.T) {
	opened := func(file []byte, decode func([]byte) error) (n int) {
		require.NoError(t, decode(file))
		try := func(b []byte) {
			if b = resummed(b); !bytes.Equal(b, file) && decode(b) == nil {
				n++
			}
		}
		flips(file, func(_ int, b []byte) { try(b) })
		for _, more := range moreParameters {
			try(withParameter(file, more))
		}
		return n
	}
	require.Zero(t, opened(sample(t, `{"Account":{}}`)))
	require.Zero(t, opened(unboundSample(t, `{"Account":{}}`, true, true)))

	// Control: without both the key line can be changed. Each alone prevents it.
	require.NotZero(t, opened(unboundSample(t, `{"Account":{}}`, false, false)))
	require.Zero(t, opened(unboundSample(t, `{"Account":{}}`, true, false)))
	require.Zero(t, opened(unboundSample(t, `{"Account":{}}`, false, true)))
}

var moreParameters = []string{" a=1", " previous=keyring/0", " origin=AAAAAAAAAAAAAAAAAAAAAA"}

// withParameter returns the file with its key line longer.
func withParameter(file []byte, parameter string) []byte {
	line, _, _ := strings.Cut(string(file[len(version)+1:]), "\n")
	return bytes.Replace(file, []byte(line), []byte(line+parameter), 1)
}

// A save reads the header only, and never the tag. What it writes again was
// written with the key.
func TestAForgedKeyLineDoesNotSurviveASave(t *testing.T) {
	for _, parameter := range moreParameters {
		path, source := tempPath(t), fixed{"keyring", randomKey()}
		require.NoError(t, newFile(t, path, source).Save(ctx, []byte("one")))
		forged := resummed(withParameter(readFile(t, path), parameter))
		require.NoError(t, os.WriteFile(path, forged, 0o600))
		f := newFile(t, path, source)
		requireError(t, "wrong-key", f.Save(ctx, []byte("two")))
		requireError(t, "wrong-key", f.Check(ctx))
		requireError(t, "wrong-key", f.Rotate(ctx, source))
		_, err := f.Load(ctx)
		requireError(t, "wrong-key", err)
		require.Equal(t, forged, readFile(t, path))
	}

	// Control: with a commitment that does not cover the key line, what a save looks
	// at passes.
	key := randomKey()
	h := &header{source: "keyring", ref: newID()}
	without := func() *derived {
		d, err := derive(key, &header{salt: h.salt}, "")
		require.NoError(t, err)
		return d
	}
	h.commit = without().commit
	h.file.previous = "keyring/0"
	require.True(t, without().commits(h))
	d, err := derive(key, h, "")
	require.NoError(t, err)
	require.False(t, d.commits(h))
}

func TestEveryLengthButItsOwnIsDamage(t *testing.T) {
	for _, data := range []string{"", "x", `{"Account":{}}`} {
		file, decode := sample(t, data)
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
		parts, rev, err := (*fileCodec)(f).Encode(ctx, []byte("the same"), nil)
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

// The three outputs differ and depend on each input. Names that would be the same
// if they were joined carelessly are not. The commitment alone depends on the key
// line.
func TestDerive(t *testing.T) {
	key, salt, line := bytes.Repeat([]byte{1}, 32), [32]byte{2}, "keyring"
	seen := map[string]bool{}
	add := func(key []byte, salt [32]byte, name string) *derived {
		d, err := derive(key, &header{source: line, ref: "0", salt: salt}, name)
		require.NoError(t, err)
		require.NotEqual(t, d.key, d.commit)
		for _, b := range [][]byte{d.key[:], d.nonce[:], d.commit[:]} {
			require.False(t, seen[string(b)])
			seen[string(b)] = true
		}
		return d
	}
	for _, name := range []string{"", "a", "b", "A", "a\x00", "key\x00a", "\x00commit\x00a", "key keyring 0\n", "0\nkey keyring 0\n"} {
		add(key, salt, name)
		add(key, [32]byte{3}, name)
		add(bytes.Repeat([]byte{4}, 32), salt, name)
	}
	one, err := derive(key, &header{source: "keyring", ref: "0", salt: [32]byte{5}}, "")
	require.NoError(t, err)
	for _, h := range []header{{source: "kernel", ref: "0"}, {source: "keyring", ref: "1"}, {source: "keyring", ref: "0 a=1"},
		{source: "keyring", ref: "0", file: fileParams{previous: "keyring/1"}}, {source: "keyring", ref: "0", file: fileParams{origin: "A"}}} {
		h.salt = [32]byte{5}
		other, err := derive(key, &h, "")
		require.NoError(t, err)
		require.NotEqual(t, one.commit, other.commit)
		require.Equal(t, one.key, other.key)
		require.Equal(t, one.nonce, other.nonce)
	}
	_, err = derive(key[:31], &header{}, "")
	require.Error(t, err)
}

func TestFileParametersArePutInTheirPlaces(t *testing.T) {
	hash := strings.Repeat("A", 22)
	all := fileParams{boot: hash, origin: hash, previous: "keyring/1", userns: hash}
	previous := fileParams{previous: "keyring/1"}
	for _, c := range []struct {
		ref  string
		file fileParams
		want string
	}{
		{"id", previous, "id previous=keyring/1"},
		{"id m=1 p=2 salt=3 t=4", previous, "id m=1 p=2 previous=keyring/1 salt=3 t=4"},
		{"id p-a=1 prev=1", previous, "id p-a=1 prev=1 previous=keyring/1"},
		{"id previous-2=1", previous, "id previous=keyring/1 previous-2=1"},
		{"id a=1", previous, "id a=1 previous=keyring/1"},
		{"id a=1 c=2 p=3 z=4", all, "id a=1 boot=" + hash + " c=2 origin=" + hash + " p=3 previous=keyring/1 userns=" + hash + " z=4"},
		{"id", all, "id boot=" + hash + " origin=" + hash + " previous=keyring/1 userns=" + hash},
		{"id a=1", fileParams{}, "id a=1"},
	} {
		require.Equal(t, c.want, joinRef(c.ref, c.file))
		require.True(t, validRef(c.want))
		ref, file, ok := splitRef(c.want)
		require.True(t, ok)
		require.Equal(t, c.ref, ref)
		require.Equal(t, c.file, file)
	}
	for _, bad := range []string{"id origin=AAAA", "id origin=" + hash[:21] + "B", "id boot=" + hash + "A", "id userns=" + hash[:21] + "+", "id previous=x"} {
		_, _, ok := splitRef(bad)
		require.False(t, ok, bad)
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
			again, err := d.sealAfter(aad, raw(tc.Msg), newMemory)
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
		if ref, file, ok := splitRef(h.ref); !ok || ref != h.ref || file != (fileParams{}) {
			t.Fatalf("reference %q", h.ref)
		}
	})
}

// FuzzOpen: no file but the one that was written is opened. The sum is corrected,
// so that the fuzzer gets past it.
func FuzzOpen(f *testing.F) {
	for _, v := range allVectors(f) {
		f.Add(v.file, false)
		f.Add(v.file, true)
	}
	good, decode := sample(f, `{"Account":{}}`)
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
