package encrypted

import (
	"context"
	"fmt"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// KeySource is where a file's master key comes from: a keyring, a passphrase,
// a variable, a service. A key is 32 bytes, random or as hard to guess.
//
// The file's header names its key by a reference: the key's id, then
// parameters, all of it readable by anybody who has the file.
//
//	reference = id *( " " name "=" value )
//
// An id is 1 to 64 of a-z, 0-9, ".", "_" and "-", and begins with a letter or
// digit. A name is 1 to 32 of a-z, 0-9 and "-", and begins with a letter; a
// value is 1 to 2048 of A-Z, a-z, 0-9 and "-._~/:+@". Names are in ascending
// order, each once, and "previous" is not for a source to use. One header
// takes 4096 bytes at most.
//
// Its methods are safe for concurrent use and obey their context. They fail
// with an error that matches the class that fits (persistence.ErrKeyMissing,
// ErrWrongKey, ErrUnavailable, ErrKeyringLocked, …), best a
// *[persistence.Error] with Err and a Remedy and the rest empty, and that
// holds no secret. A [File] keeps the key in memory and asks again only for
// another reference.
type KeySource interface {
	// Source is the word for the source in the file's header, "keyring" for
	// example: 1 to 32 of a-z, 0-9 and "-", beginning with a letter.
	Source() string
	// NewKey makes a key for a file and returns it with its reference. id is
	// random and new, 32 hexadecimal digits. A source that stores its keys
	// stores this one under id, or returns the one that it has there already
	// (a process that was making it was killed). A source that cannot make
	// keys, such as a variable, returns the one it has under an id that
	// depends on the key.
	NewKey(ctx context.Context, id string) (ref string, key []byte, err error)
	// Key returns the key of that reference, or fails with ErrKeyMissing if it
	// is certain that there is none.
	Key(ctx context.Context, ref string) (key []byte, err error)
}

// KeyDeleter is a [KeySource] that stores the keys that it makes.
type KeyDeleter interface {
	KeySource
	// DeleteKey deletes the key of that reference, of which the parameters may
	// be left out. Deleting what is not there succeeds.
	DeleteKey(ctx context.Context, ref string) error
}

// fault is the error of a source or of the codec: a cause and what to do about
// it. What was tried, and on which file, is filled in further up.
func fault(remedy, format string, args ...any) error {
	return &persistence.Error{Err: fmt.Errorf(format, args...), Remedy: remedy}
}
