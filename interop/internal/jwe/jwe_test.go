package jwe

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// written is what azidentity/cache v0.4.0 made of writtenText with writtenKey. The
// module interop/e2e runs that writer.
const (
	writtenKey  = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	writtenText = `{"RefreshToken":{}}`
	written     = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2Iiwia2lkIjoiMTIzNDU2Nzg5In0..QhQ9HvDmvm8p0Hnab2YiBg.4G5Yk11P507Vz6KPsGjoa1yBAZUQ0hpisH3m89_FR2M.GG4UPIbw68wvWgIV2lLz9A"
)

const planted = "planted-secret"

var (
	key    = must(hex.DecodeString(writtenKey))
	header = encode([]byte(`{"alg":"dir","enc":"A128CBC-HS256","kid":"123456789"}`))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// seal encrypts blocks as they are, so that a test can give them a wrong end.
func seal(blocks []byte) string {
	iv := bytes.Repeat([]byte{7}, aes.BlockSize)
	text := make([]byte, len(blocks))
	cipher.NewCBCEncrypter(must(aes.NewCipher(key[tagSize:])), iv).CryptBlocks(text, blocks)
	return strings.Join([]string{header, "", encode(iv), encode(text), encode(tag(key[:tagSize], iv, text))}, ".")
}

func sealed(plain string) string {
	n := aes.BlockSize - len(plain)%aes.BlockSize
	return seal(append([]byte(plain), bytes.Repeat([]byte{byte(n)}, n)...))
}

func open(text string, key []byte) ([]byte, error) {
	m, err := Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	return m.Decrypt(key)
}

func TestOpens(t *testing.T) {
	got, err := open(written, key)
	require.NoError(t, err)
	require.Equal(t, writtenText, string(got))
	for _, plain := range []string{"", "x", strings.Repeat("y", 15), strings.Repeat("z", 16), `{"RefreshToken":{}}`} {
		got, err := open(sealed(plain), key)
		require.NoError(t, err)
		require.Equal(t, plain, string(got))
	}
}

// Whatever was changed, the message is refused, with the class that says what to do.
func TestRefuses(t *testing.T) {
	good := strings.Split(sealed(planted), ".")
	with := func(i int, part string) string {
		p := append([]string(nil), good...)
		p[i] = part
		return strings.Join(p, ".")
	}
	changed := func(i int) string {
		b := must(base64.RawURLEncoding.DecodeString(good[i]))
		b[len(b)-1] ^= 1
		return with(i, encode(b))
	}
	head := func(s string) string { return with(0, encode([]byte(s))) }
	block := strings.Repeat("a", aes.BlockSize)
	for name, c := range map[string]struct {
		text  string
		class error
	}{
		"empty":                   {"", persistence.ErrCorrupt},
		"no JWE":                  {planted, persistence.ErrCorrupt},
		"a plain cache":           {`{"RefreshToken":{}}`, persistence.ErrCorrupt},
		"too many parts":          {sealed(planted) + ".", persistence.ErrCorrupt},
		"thousands of parts":      {strings.Repeat(".", 100_000), persistence.ErrCorrupt},
		"header not base64":       {with(0, "*"), persistence.ErrCorrupt},
		"header null":             {head("null"), persistence.ErrUnsupportedVersion},
		"header cut":              {head(`{"alg":"dir"`), persistence.ErrCorrupt},
		"header too long":         {with(0, strings.Repeat("A", maxHeader+4)), persistence.ErrCorrupt},
		"another algorithm":       {head(`{"alg":"A128KW","enc":"A128CBC-HS256"}`), persistence.ErrUnsupportedVersion},
		"no algorithm":            {head(`{"alg":"none","enc":"none"}`), persistence.ErrUnsupportedVersion},
		"another encryption":      {head(`{"alg":"dir","enc":"A256GCM"}`), persistence.ErrUnsupportedVersion},
		"compressed":              {head(`{"alg":"dir","enc":"A128CBC-HS256","zip":"DEF"}`), persistence.ErrUnsupportedVersion},
		"critical":                {head(`{"alg":"dir","enc":"A128CBC-HS256","crit":["x"]}`), persistence.ErrUnsupportedVersion},
		"an encrypted key":        {with(1, "AAAA"), persistence.ErrCorrupt},
		"no vector":               {with(2, ""), persistence.ErrCorrupt},
		"vector too short":        {with(2, "AAAA"), persistence.ErrCorrupt},
		"no text":                 {with(3, ""), persistence.ErrCorrupt},
		"text of no whole blocks": {with(3, "AAAA"), persistence.ErrCorrupt},
		"no tag":                  {with(4, ""), persistence.ErrCorrupt},
		"tag cut":                 {with(4, good[4][:len(good[4])-4]), persistence.ErrCorrupt},
		"vector changed":          {changed(2), persistence.ErrWrongKey},
		"text changed":            {changed(3), persistence.ErrWrongKey},
		"tag changed":             {changed(4), persistence.ErrWrongKey},
		"end of 0":                {seal([]byte(block[:15] + "\x00")), persistence.ErrCorrupt},
		"end of 17":               {seal([]byte(block[:15] + "\x11")), persistence.ErrCorrupt},
		"end not even":            {seal([]byte(block[:14] + "\x01\x02")), persistence.ErrCorrupt},
	} {
		_, err := open(c.text, key)
		require.ErrorIs(t, err, c.class, name)
		require.NotContains(t, err.Error(), planted, name)
	}
	_, err := open(sealed(planted), bytes.Repeat([]byte{1}, KeySize))
	require.ErrorIs(t, err, persistence.ErrWrongKey)
	for _, k := range [][]byte{nil, key[:16], append(key[:KeySize:KeySize], 0)} {
		_, err := open(sealed(planted), k)
		require.ErrorIs(t, err, persistence.ErrWrongKey)
	}
}

// Every beginning of a message is one that was cut off: a reader tries again.
func TestEveryBeginningIsCorrupt(t *testing.T) {
	whole := sealed(planted)
	for n := range len(whole) {
		_, err := Parse([]byte(whole[:n]))
		require.ErrorIs(t, err, persistence.ErrCorrupt, "%d of %d bytes", n, len(whole))
	}
}

func FuzzOpen(f *testing.F) {
	for _, seed := range []string{"", "....", sealed(""), sealed(planted), header + "....", sealed(planted)[:60], written} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			if !errors.Is(err, persistence.ErrCorrupt) && !errors.Is(err, persistence.ErrUnsupportedVersion) {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		plain, err := m.Decrypt(key)
		if err == nil {
			// Nobody can make a tag without the key, so these are a seed's.
			if said := string(plain); said != "" && said != planted && said != writtenText {
				t.Fatalf("%q was opened", data)
			}
		} else if !errors.Is(err, persistence.ErrWrongKey) {
			t.Fatalf("an error without a class: %v", err)
		}
	})
}
