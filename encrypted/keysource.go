package encrypted

import "context"

// KeySource is where a file's master key comes from: a keyring, a passphrase,
// a variable, a service. A key is 32 bytes, random or as hard to guess.
//
// The file's header names its key by a reference: the key's id, then parameters.
// Everybody who has the file can read it.
//
//	reference = id *( " " name "=" value )
//
// An id is 1 to 64 of a-z, 0-9, ".", "_" and "-", and starts with a letter or a
// digit. A name is 1 to 32 of a-z, 0-9 and "-", and starts with a letter. A value
// is 1 to 2048 of A-Z, a-z, 0-9 and "-._~/:+@". Names are in ascending order, each
// once. The names "boot", "origin", "previous" and "userns" belong to the file: a
// source must not use them and never sees them. A header has 4096 bytes at most.
//
// Methods are safe for concurrent use and end with their context. They fail with
// an error that matches the class that fits (persistence.ErrKeyMissing,
// ErrWrongKey, ErrUnavailable, ErrKeyringLocked, …), with a remedy that
// persistence.Remedy finds, and without a secret. A [File] keeps the key in
// memory and asks again only for another reference.
//
// The words "keyring" and "kernel" are for sources of keys in the operating
// system's keyring and in the Linux kernel's. A kernel's keys end with the boot and
// exist in one user namespace, and a File of that word counts a key as gone
// accordingly.
type KeySource interface {
	// Source is the word for the source in the file's header, "keyring" for
	// example: 1 to 32 of a-z, 0-9 and "-", starting with a letter.
	Source() string
	// NewKey makes a key for a file and returns it with its reference. id has
	// 32 random hexadecimal digits. A source that stores its keys stores this
	// one under id, or returns the key that it already has there: a process may
	// have been killed while it was making it. A source that cannot make keys,
	// such as a variable, returns its one key under an id that depends on the
	// key.
	NewKey(ctx context.Context, id string) (ref string, key []byte, err error)
	// Key returns the key of that reference. It fails with ErrKeyMissing only if
	// the place that stores this user's keys has answered, is open and has no
	// such key. If it is not certain who answered, as over a socket whose peer was
	// not checked, the class is ErrUnavailable.
	Key(ctx context.Context, ref string) (key []byte, err error)
}

// KeyDeleter is a [KeySource] that stores the keys that it makes. The first word
// of every reference is the id that NewKey was called with.
//
// A File gives such keys ids by which it knows its own: a key that was made for a
// file in another folder, for another cache name, by another user or on another
// machine is never deleted. Where such a source has no key of a reference, the
// File asks it to keep a new one before it believes that the key is gone.
type KeyDeleter interface {
	KeySource
	// DeleteKey deletes the key of that reference. The parameters may be left
	// out. Deleting a key that is not there succeeds.
	DeleteKey(ctx context.Context, ref string) error
}
