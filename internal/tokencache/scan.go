package tokencache

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"unicode/utf8"
)

// maxDepth is how deeply JSON may nest: the limit of encoding/json, so that
// both call the same bytes valid.
const maxDepth = 10000

// text returns what a quoted JSON string means, as encoding/json decodes it: a
// slice of the input wherever possible.
func text(quoted []byte) []byte {
	in := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(in, '\\') < 0 && utf8.Valid(in) {
		return in
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return in // not reached: quoted is a valid string
	}
	return []byte(s)
}

// The scanner. Each function takes the index of a value's first byte and returns the
// index of the first byte after the value, or -1 if the value is not valid JSON.

// object scans the object at i, which is nested that deeply. For each member
// it calls member, if not nil, with the key and the index of the value, to scan
// the value.
func object(b []byte, i, depth int, member func(key []byte, i int) int) int {
	if depth > maxDepth {
		return -1
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for i < len(b) && b[i] == '"' {
		start := i
		if i = str(b, i); i < 0 {
			return -1
		}
		key := b[start:i]
		if i = space(b, i); i == len(b) || b[i] != ':' {
			return -1
		}
		if i = space(b, i+1); i == len(b) {
			return -1
		}
		if member != nil {
			i = member(key, i)
		} else {
			i = value(b, i, depth)
		}
		if i < 0 {
			return -1
		}
		if i = space(b, i); i == len(b) {
			return -1
		}
		switch b[i] {
		case '}':
			return i + 1
		case ',':
			i = space(b, i+1)
		default:
			return -1
		}
	}
	return -1
}

// array is object for an array; element may be nil.
func array(b []byte, i, depth int, element func(i int) int) int {
	if depth > maxDepth {
		return -1
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for i < len(b) {
		if element != nil {
			i = element(i)
		} else {
			i = value(b, i, depth)
		}
		if i < 0 {
			return -1
		}
		if i = space(b, i); i == len(b) {
			return -1
		}
		switch b[i] {
		case ']':
			return i + 1
		case ',':
			i = space(b, i+1)
		default:
			return -1
		}
	}
	return -1
}

// value scans any value inside of depth objects and arrays.
func value(b []byte, i, depth int) int {
	switch c := b[i]; c {
	case '"':
		return str(b, i)
	case '{':
		return object(b, i, depth+1, nil)
	case '[':
		return array(b, i, depth+1, nil)
	case 't':
		return literal(b, i, "true")
	case 'f':
		return literal(b, i, "false")
	case 'n':
		return literal(b, i, "null")
	default:
		if c == '-' || '0' <= c && c <= '9' {
			return number(b, i)
		}
		return -1
	}
}

func literal(b []byte, i int, word string) int {
	if end := i + len(word); end <= len(b) && string(b[i:end]) == word {
		return end
	}
	return -1
}

func number(b []byte, i int) int {
	digits := func() bool {
		start := i
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			i++
		}
		return i > start
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return -1
		}
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// longRun is how far into a string the search for its end goes over to
// [bytes.IndexByte], which is several times faster once it has begun.
const longRun = 64

func str(b []byte, i int) int {
	i++
	long := i + longRun
	for i < len(b) {
		// Most of a cache is long tokens: take eight bytes at a time while none
		// is a control character, a quote or a backslash. In such a byte's place
		// a subtraction borrows, and the lowest of them is right.
		for i+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[i:])
			special := (x - ' '*ones) | (x ^ '"'*ones - ones) | (x ^ '\\'*ones - ones)
			if special &= highs &^ x; special != 0 {
				i += bits.TrailingZeros64(special) / 8
				break
			}
			i += 8
			if i >= long {
				long = len(b) // once in a string: many escapes must not make it quadratic
				if n := bytes.IndexByte(b[i:], '"'); n >= 0 && plain(b[i:i+n]) {
					return i + n + 1
				}
			}
		}
		if i == len(b) {
			return -1
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c != '\\':
			i++
		default:
			if i = escape(b, i); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// plain reports whether s has neither control characters nor backslashes.
func plain(s []byte) bool {
	if bytes.IndexByte(s, '\\') >= 0 {
		return false
	}
	var control uint64
	for ; len(s) >= 32; s = s[32:] {
		w, x := binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[8:])
		y, z := binary.LittleEndian.Uint64(s[16:]), binary.LittleEndian.Uint64(s[24:])
		control |= (w-' '*ones)&^w | (x-' '*ones)&^x | (y-' '*ones)&^y | (z-' '*ones)&^z
	}
	for _, c := range s {
		if c < ' ' {
			return false
		}
	}
	return control&highs == 0
}

// escape scans what begins with the backslash at i.
func escape(b []byte, i int) int {
	if i+1 >= len(b) {
		return -1
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if i+6 > len(b) {
			return -1
		}
		for _, c := range b[i+2 : i+6] {
			if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
				return -1
			}
		}
		return i + 6
	}
	return -1
}

// space returns the index of the first byte at or after i that is not white
// space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skip is value for a value that is known to be valid.
func skip(b []byte, i int) int {
	if b[i] != '"' {
		return value(b, i, 0)
	}
	for i++; ; i++ {
		i += bytes.IndexByte(b[i:], '"')
		slashes := 0
		for b[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
}
