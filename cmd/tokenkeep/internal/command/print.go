package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/internal/quote"
)

// printer writes a report for a person.
type printer struct {
	w      io.Writer
	colour bool
	ascii  bool // no check marks
}

// line prints a line. Text in args is quoted and JSON is escaped, because others may
// have written parts of it. What [printer.in] returns is printed as it is.
func (p *printer) line(format string, args ...any) {
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			args[i] = quote.Inline(arg)
		case fmt.Stringer:
			args[i] = quote.Inline(arg.String())
		case json.RawMessage:
			args[i] = quote.JSON(arg)
		}
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

// styled is text that a terminal may get as it is.
type styled string

// The colours, by their numbers in ECMA-48.
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
)

// in returns the text in that colour, if there are colours.
func (p *printer) in(colour, text string) styled {
	text = quote.Inline(text)
	if !p.colour {
		return styled(text)
	}
	return styled("\x1b[" + colour + "m" + text + "\x1b[0m")
}

// wrapped writes text in lines of at most 80 characters, first before the first
// of them and as much space before the others.
func (p *printer) wrapped(first, text string) {
	indent := strings.Repeat(" ", len([]rune(first)))
	line, width := first, 0
	for _, word := range strings.Fields(text) {
		if width > 0 && len(indent)+width+1+len([]rune(word)) > 80 {
			p.line("%s", line)
			line, width = indent, 0
		}
		if width > 0 {
			line, width = line+" ", width+1
		}
		line, width = line+word, width+len([]rune(word))
	}
	p.line("%s", line)
}

// short is text of a cache, not too long to be shown.
func short(s string) string {
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return s
}

// count returns "1 file", "2 files", …
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// asciiJSON returns JSON that means the same and is ASCII.
func asciiJSON(text []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// jsonText is the text of a report that has nothing else, as JSON.
func jsonText(r report) ([]byte, error) {
	var b bytes.Buffer
	r.write(&printer{w: &b})
	return json.Marshal(map[string]string{"text": b.String()})
}
