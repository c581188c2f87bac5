package quote_test

import (
	"encoding/json"
	"strconv"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/quote"
)

var texts = map[string]string{ // and as Inline shows them
	"":                    "",
	"invalid_grant":       "invalid_grant",
	"Zoë \"É\" 東京 \\ 🙂":   "Zoë \"É\" 東京 \\ 🙂",
	"\x1b[2J\a\r\n\t\x00": `\x1b[2J\a\r\n\t\x00`,
	"\u009b31m\u0085":     `\u009b31m\u0085`,
	"\u202egnp.\u2066\u200f\u200b\u2028\ufeff\u00ad\U000E0041": `\u202egnp.\u2066\u200f\u200b\u2028\ufeff\u00ad\U000e0041`,
	"\xff\xe2\x80": `\xff\xe2\x80`,
	"\ufffd":       "\ufffd",
	"\u00a0\u3000": `\u00a0\u3000`, // look like a space, and are none
}

func TestInline(t *testing.T) {
	for text, want := range texts {
		require.Equal(t, want, quote.Inline(text))
	}
}

func TestText(t *testing.T) {
	require.Equal(t, `"say \"\x1b[2J\" \\ \u202e"`, quote.Text("say \"\x1b[2J\" \\ \u202e"))
}

func TestJSON(t *testing.T) {
	require.Equal(t, "{\"\\u202e\\udb40\\udc41\": [\"é\\u009b\ufffd\",\n\t1]}\n", string(quote.JSON([]byte("{\"\u202e\U000E0041\": [\"é\u009b\xff\",\n\t1]}\n"))))
}

func FuzzQuote(f *testing.F) {
	for text := range texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		shown := quote.Text(s)
		back, err := strconv.Unquote(shown)
		require.NoError(t, err)
		require.Equal(t, s, back)
		for _, shown := range []string{shown, quote.Inline(s)} {
			require.True(t, utf8.ValidString(shown))
			for _, r := range shown {
				require.True(t, strconv.IsPrint(r), "%q", shown)
			}
		}
		data, err := json.Marshal([]string{s})
		require.NoError(t, err)
		safe := quote.JSON(data)
		for _, r := range string(safe) {
			require.True(t, strconv.IsPrint(r), "%q", safe)
		}
		var a, b []string
		require.NoError(t, json.Unmarshal(data, &a))
		require.NoError(t, json.Unmarshal(safe, &b))
		require.Equal(t, a, b)
	})
}
