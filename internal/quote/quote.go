// Package quote makes text that others wrote safe to show at a terminal: nothing
// in it moves the cursor, changes the colour or the direction, ends the line or
// is invisible.
package quote

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Text returns s in double quotes, with Go's escapes. Everything that is not
// printable ([strconv.IsPrint]) is escaped, and so are quotes and backslashes.
func Text(s string) string { return strconv.Quote(s) }

// Inline returns s without quotes. Everything that is not printable is escaped
// as [Text] does; all else, also a backslash, stays as it is. It is for what is
// usually a plain word, and for a place that a reader cannot take for another.
func Inline(s string) string {
	if printable(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			b.WriteString(s[i : i+n])
		default:
			escaped := strconv.QuoteRune(r)
			b.WriteString(escaped[1 : len(escaped)-1])
		}
		i += n
	}
	return b.String()
}

// JSON returns a JSON text that means the same, in which everything that is not
// printable is escaped. Spaces, tabs and line ends between the values stay.
func JSON(data []byte) []byte {
	var b bytes.Buffer
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError: // a broken byte is U+FFFD to every reader of JSON
			b.WriteRune(r)
		case r == '\t' || r == '\n' || r == '\r' || strconv.IsPrint(r):
			b.Write(data[i : i+n])
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.Bytes()
}

func printable(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}
