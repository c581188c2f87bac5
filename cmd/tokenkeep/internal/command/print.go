package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// printer writes a report for a person.
type printer struct {
	w      io.Writer
	colour bool
}

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

// The colours, by their numbers in ECMA-48.
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
)

func (p *printer) in(colour, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
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

// printable makes text of a cache fit for a terminal: without what could move
// the cursor or be read backwards, and not too long.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "…"
	}
	return s
}

// count is "1 file", "2 files", …
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// jsonText is the text of a report that has nothing else, as JSON.
func jsonText(r report) ([]byte, error) {
	var b bytes.Buffer
	r.write(&printer{w: &b})
	return json.Marshal(map[string]string{"text": b.String()})
}
