// Package encrypted keeps a token cache in a file that is encrypted with
// AES-256-GCM. [New] makes a [File], a persistence.Persistence. A [KeySource] gives
// it its key. The key of a program on a user's machine belongs in the OS keyring, whose
// source is in package [github.com/tokenkeep/tokenkeep/keyring]. The sources of this
// package are for machines without a keyring: [DPAPI] on Windows, [Passphrase], [Raw],
// [Env], [KeyFile] and [Command].
//
// # What is guaranteed
//
// Somebody who has the file and not the key learns the cache's size, when it was
// saved, where the key comes from, the key's random id and what else is in the key's
// reference (see [KeySource]), and nothing else. Every changed byte is noticed. Every
// save has a key and a nonce of its own, derived from the master key and a new random
// salt. A file opens with one key and under one cache's name only.
//
// A save is all or nothing, and durable, at whatever point the process or the
// system dies. A file that cannot be opened is never overwritten.
//
// The errors say what went wrong, because that decides what happens to the file:
// persistence.ErrCorrupt is certain damage; persistence.ErrWrongKey is a sound
// file and a wrong key, passphrase or name, or with DPAPI the wrong user;
// persistence.ErrKeyMissing is a source without the key;
// persistence.ErrUnsupportedVersion is a file of a newer version.
//
// # What is not guaranteed
//
// An older copy of the file that is put back is not noticed. Programs of the
// same user can get the key in the same way as this program. The key and the cache are
// unencrypted in this process's memory, and may get into swap and core dumps. A context
// does not interrupt the disk. It does not interrupt a derivation from a passphrase
// either, but ends the wait for it.
//
// # Keys
//
// A key is made when [File.Check] or the first save needs one, and kept in
// memory. [File.Rotate] replaces it, also by one from another source, and keeps
// the replaced key until the next Rotate. [File.Delete] deletes the keys with the
// file. The lock file records stored keys that are being made or deleted, so that a
// killed process leaves none behind.
//
// # The format
//
// FORMAT.md beside this package specifies the file to the byte, with test
// vectors. Files of this version stay readable by every later version.
package encrypted
