package tokensource

import (
	"encoding/base64"
	"encoding/hex"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// Providers echo what they were sent, so their texts are shown without it. Each
// of a request's secrets is searched for in every encoding that an answer may
// have it in. Escapes (percent, form, JSON, HTML, also one in another) are undone
// in the text; for base64 and hex, the encodings of the secret are made.

// mostText is how much of a provider's text is shown, in bytes.
const mostText = 300

// words are compiled when there is an error to show, not when a program starts.
var words = sync.OnceValue(func() (w struct{ long, code *regexp.Regexp }) {
	w.long = regexp.MustCompile(`[^\s"'()\[\]{}<>,;]{24,}`) // may be a token of any kind
	w.code = regexp.MustCompile(`[0-9A-Za-z_]+`)            // may be an error code
	return w
})

// area is a part of a text, from one index to another.
type area struct{ from, to int }

// scrub returns the beginning of text with an ellipsis for each secret and for
// each word that is as long as a token. Registered error codes stay whole, even
// if a secret is a part of one. clientID is what the last secrets were sent with
// by HTTP Basic authentication.
func scrub(text string, secrets []string, clientID string) string {
	forms := formsOf(secrets, clientID)
	// A secret that begins in what is shown must be there to its end. The longest
	// encoding known takes 8 bytes for one.
	longest := 0
	for _, s := range secrets {
		longest = max(longest, len(s)+len(clientID)+1)
	}
	window := text[:min(len(text), mostText+16*longest)]

	var hide []area
	for _, m := range words().long.FindAllStringIndex(window, -1) {
		hide = append(hide, area{m[0], m[1]})
	}
	for _, v := range viewsOf(window) {
		for _, form := range forms {
			hide = v.find(hide, form)
		}
	}
	var codes []area
	for _, m := range words().code.FindAllStringIndex(window, -1) {
		if registered(window[m[0]:m[1]]) {
			codes = append(codes, area{m[0], m[1]})
		}
	}
	hide = slices.DeleteFunc(hide, func(h area) bool {
		return slices.ContainsFunc(codes, func(c area) bool { return c.from <= h.from && h.to <= c.to })
	})
	slices.SortFunc(hide, func(a, b area) int { return a.from - b.from })

	var b strings.Builder
	at, end := 0, min(len(window), mostText)
	for _, h := range hide {
		if h.from >= end {
			break
		}
		if h.from >= at {
			b.WriteString(window[at:h.from])
			b.WriteString("…")
		}
		at = max(at, h.to)
	}
	if at < end {
		for end < len(window) && !utf8.RuneStart(window[end]) {
			end--
		}
		b.WriteString(window[at:max(at, end)])
	}
	if len(text) > mostText && !strings.HasSuffix(b.String(), "…") {
		b.WriteString("…")
	}
	return b.String()
}

// form is how a secret may stand in a text.
type form struct {
	text   string
	base64 bool // a part of a base64 word: all of the word goes
}

func formsOf(secrets []string, clientID string) []form {
	var forms []form
	add := func(text string, base64 bool) {
		if f := (form{text, base64}); text != "" && !slices.Contains(forms, f) {
			forms = append(forms, f)
		}
	}
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		add(secret, false)
		add(hex.EncodeToString([]byte(secret)), false)
		add(strings.ToUpper(hex.EncodeToString([]byte(secret))), false)
		escaped := url.QueryEscape(secret)
		for _, s := range []string{secret, escaped, clientID + ":" + secret, url.QueryEscape(clientID) + ":" + escaped} {
			for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
				add(e.EncodeToString([]byte(s)), true)
				for before := range 3 {
					// Without the digits that hold bits of what may stand around it.
					digits := e.WithPadding(base64.NoPadding).EncodeToString(append(make([]byte, before), s...))
					digits = digits[(8*before+5)/6 : 8*(before+len(s))/6]
					if len(digits) >= 4 {
						add(digits, true)
					}
				}
			}
		}
	}
	return forms
}

// view is a text with some of its escapes undone.
type view struct {
	text string
	from []area // by index in text, what each byte was made of; nil: itself
}

func (v view) source(at int) area {
	if v.from == nil {
		return area{at, at + 1}
	}
	return v.from[at]
}

// find appends where the form stands, by the original text's indices.
func (v view) find(found []area, f form) []area {
	for at := 0; ; {
		i := strings.Index(v.text[at:], f.text)
		if i < 0 {
			return found
		}
		from, to := at+i, at+i+len(f.text)
		if f.base64 {
			for from > 0 && isBase64(v.text[from-1]) {
				from--
			}
			for to < len(v.text) && isBase64(v.text[to]) {
				to++
			}
		}
		found = append(found, area{v.source(from).from, v.source(to - 1).to})
		at = to
	}
}

func isBase64(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || strings.IndexByte("+/-_=", c) >= 0
}

// viewsOf returns the text as it is, and with up to three layers of escapes undone.
func viewsOf(text string) []view {
	views := []view{{text: text}}
	for layer, from := 0, 0; layer < 3; layer++ {
		to := len(views)
		for _, v := range views[from:to] {
			for _, unescape := range []func(string) (string, int){unescapePercent, unescapeForm, unescapeJSON, unescapeHTML} {
				if next := v.undo(unescape); next.text != v.text {
					views = append(views, next)
				}
			}
		}
		from = to
	}
	return views
}

// undo returns the view with each escape replaced by what it stands for.
// unescape returns that for the escape that a text begins with, and the escape's
// length, or 0 if the text begins with none.
func (v view) undo(unescape func(string) (string, int)) view {
	var b strings.Builder
	var from []area
	for i := 0; i < len(v.text); {
		plain, n := unescape(v.text[i:])
		if n == 0 {
			plain, n = v.text[i:i+1], 1
		}
		b.WriteString(plain)
		for range len(plain) {
			from = append(from, area{v.source(i).from, v.source(i + n - 1).to})
		}
		i += n
	}
	return view{b.String(), from}
}

func unescapePercent(s string) (string, int) {
	if len(s) >= 3 && s[0] == '%' {
		if c, err := strconv.ParseUint(s[1:3], 16, 8); err == nil {
			return string([]byte{byte(c)}), 3
		}
	}
	return "", 0
}

func unescapeForm(s string) (string, int) {
	if s[0] == '+' {
		return " ", 1
	}
	return unescapePercent(s)
}

// unescapeJSON knows also \x, as Go and JavaScript write it.
func unescapeJSON(s string) (string, int) {
	if len(s) < 2 || s[0] != '\\' {
		return "", 0
	}
	number := func(s string, from, to int) rune {
		if len(s) < to {
			return -1
		}
		n, err := strconv.ParseUint(s[from:to], 16, 32)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	switch s[1] {
	case 'u':
		r := number(s, 2, 6)
		if r < 0 {
			return "", 0
		}
		if utf16.IsSurrogate(r) && len(s) >= 12 && s[6:8] == `\u` {
			return string(utf16.DecodeRune(r, number(s, 8, 12))), 12
		}
		return string(r), 6
	case 'x':
		if c := number(s, 2, 4); c >= 0 {
			return string([]byte{byte(c)}), 4
		}
		return "", 0
	}
	if i := strings.IndexByte(`"\/'bfnrt`, s[1]); i >= 0 {
		return "\"\\/'\b\f\n\r\t"[i : i+1], 2
	}
	return "", 0
}

func unescapeHTML(s string) (string, int) {
	if s[0] != '&' {
		return "", 0
	}
	end := strings.IndexByte(s[:min(len(s), 12)], ';')
	if end < 0 {
		return "", 0
	}
	plain := html.UnescapeString(s[:end+1])
	if plain == s[:end+1] {
		return "", 0
	}
	return plain, end + 1
}
