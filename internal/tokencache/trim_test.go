package tokencache_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// What surrounds a cache is left out, what holds nothing is empty, and what is of
// another format stays as it is.
func TestTrim(t *testing.T) {
	const cache = `{"A": {"k": "\u0000 \ufeff"}}`
	for in, want := range map[string]string{
		cache: cache, "{}": "{}", "{": "{", "{\"a\x00": "{\"a\x00", "\x00\x00{\x01": "\x00\x00{\x01", "\x00{": "\x00{",
		"\ufeff" + cache: cache, "\ufeff" + cache + "\n": cache + "\n", " \r\n" + cache + "\n": " \r\n" + cache + "\n", cache + "\x00\x00\x00": cache, "\x00\x00" + cache: cache,
		"\ufeff \n" + cache + "\n\x00": cache,
		"":                             "", " ": "", "\r\n": "", "\x00": "", "\x00\x00 \n": "", "\ufeff": "", "\ufeff\r\n": "", "null": "", "\ufeffnull\n": "", "null\x00": "",
		"xyz ": "xyz ", "\x00x": "\x00x", " [1]": " [1]", "nulls": "nulls", "\ufeffx": "\ufeffx", "\ufeff\ufeff{}": "\ufeff\ufeff{}", "\xff\xfe{": "\xff\xfe{",
	} {
		got := tokencache.Trim([]byte(in))
		require.NotNil(t, got)
		require.Equal(t, want, string(got), "%q", in)
	}
	require.Nil(t, tokencache.Trim(nil))
}
