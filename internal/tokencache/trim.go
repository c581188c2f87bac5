package tokencache

import "bytes"

const (
	byteOrderMark = "\ufeff"
	blanks        = " \t\r\n\x00"
)

// Trim returns what there is to read in stored data. Editors and scripts leave a
// byte order mark, blanks and line ends around a cache; a crash leaves NULs. Where
// there is nothing else, or only the JSON value null, Trim returns an empty slice:
// nothing is stored. It returns a part of data, and nil only for nil.
func Trim(data []byte) []byte {
	if n := len(data); n > 0 && data[0] == '{' && data[n-1] == '}' {
		return data
	}
	rest := bytes.TrimPrefix(bytes.TrimLeft(data, blanks), []byte(byteOrderMark))
	rest = bytes.Trim(rest, blanks)
	switch {
	case len(rest) == 0, string(rest) == "null":
		return data[:0]
	case rest[0] != '{': // of whatever format, as it is
		return data
	}
	return rest
}
