// Package shell writes paths for commands that a person pastes into a shell.
package shell

import (
	"fmt"
	"runtime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Quote returns path for the shells of this system: as one word that means exactly this
// path. Nothing in it controls a terminal.
func Quote(path string) string {
	if runtime.GOOS == "windows" {
		return QuoteWindows(path)
	}
	return QuoteUnix(path)
}

// QuoteWindows is [Quote] for cmd.exe and PowerShell. Variables such as
// %USERPROFILE% keep their meaning in cmd.exe.
func QuoteWindows(path string) string {
	return `"` + strings.Map(func(r rune) rune { // no file's name has these
		if r == '"' || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, path) + `"`
}

// QuoteUnix is [Quote] for sh and its descendants. A path that has characters
// which a terminal does not print needs a shell that knows $'…', as bash, zsh
// and ksh do.
func QuoteUnix(path string) string {
	switch {
	case strings.HasPrefix(path, "-"):
		return QuoteUnix("./" + path) // else the command takes it for an option
	case plain(path):
		return path
	case printable(path):
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := 0; i < len(path); {
		r, n := utf8.DecodeRuneInString(path[i:])
		switch {
		case r == '\'' || r == '\\':
			b.WriteString(`\` + path[i:i+n])
		case unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			b.WriteString(path[i : i+n])
		default:
			for _, c := range []byte(path[i : i+n]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		}
		i += n
	}
	b.WriteString("'")
	return b.String()
}

// plain reports whether a shell takes the path as it is.
func plain(path string) bool {
	special := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !strings.ContainsRune("/._+@:~-", r)
	}
	return path != "" && path[0] != '~' && strings.IndexFunc(path, special) < 0
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
