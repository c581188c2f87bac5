package tokencache

import "bytes"

const (
	byteOrderMark = "\ufeff"
	blanks        = " \t\r\n\x00"
)

// Trim returns the cache in stored data. Editors and scripts leave a byte order mark
// before a cache, and a crash leaves NULs around it: Trim cuts these off, with the
// blanks beside them. If there is nothing else, or only the JSON value null, it returns
// an empty slice: nothing is stored. Data that is not a cache even without them stays as
// it is. Trim returns a part of data, and nil only for nil.
func Trim(data []byte) []byte {
	if n := len(data); n > 0 && data[0] == '{' && data[n-1] == '}' {
		return data
	}
	begin := bytes.TrimPrefix(bytes.TrimLeft(data, blanks), []byte(byteOrderMark))
	begin = bytes.TrimLeft(begin, blanks)
	rest := bytes.TrimRight(begin, blanks)
	switch {
	case len(rest) == 0, string(rest) == "null":
		return data[:0]
	case rest[0] != '{': // of whatever format, as it is
		return data
	}
	front, back := data[:len(data)-len(begin)], begin[len(rest):]
	if isSpace(back) {
		rest = begin // JSON allows it
	}
	if isSpace(front) && isSpace(back) {
		return data
	}
	if _, err := Parse(rest); err != nil { // nor may data of another format lose its NULs
		return data
	}
	return rest
}

// isSpace reports whether b is white space of JSON.
func isSpace(b []byte) bool { return space(b, 0) == len(b) }
