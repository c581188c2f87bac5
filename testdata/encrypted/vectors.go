// Package vectors holds the test vectors of the encrypted file's format,
// encrypted/FORMAT.md: files that a reader must open, and files that it must
// refuse, each with one fault and the class of its refusal.
//
// A vector is a text header, an empty line, and then the file, byte for byte.
// The header has a line "word: value" for each of:
//
//	comment     what the file shows
//	expect      ok, corrupt, wrong-key or unsupported-version
//	source      the key source that the reader is set to
//	key         the master key, in hexadecimal
//	passphrase  that the key is derived from; only where source is passphrase
//	name        of the cache
//	sha256      of the data, in hexadecimal; only where ok is expected
//
// The files are made by generate.go, which knows the format from FORMAT.md
// alone and shares no code with the implementation:
//
//	go run ./testdata/encrypted/generate
//
// check.py reads them, in another language.
package vectors

import "embed"

// Files holds the vectors, with their names as the package's folder has them.
//
//go:embed *.vec
var Files embed.FS
