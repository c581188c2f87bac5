// Package ledger keeps what must outlive a process that is killed between two
// steps: one line of records in a cache's lock file, after the line that names the
// lock's holder. There are two kinds of record.
//
// A key record names a key that a key source may store although no file names
// it: one that is being made, or is about to be deleted. Without it a killed
// process would leave such a key in a keyring that cannot be listed. Several
// files may share a lock, so each record also says which file the key is for.
//
// The promotion record is the revision of the plaintext file that was last copied into
// the encrypted file. Without it, if a process is killed after the copy and before the
// removal, the next process would copy again what was removed from the encrypted file
// since.
//
// All functions that write need the lock, and a write is durable when it
// returns. A ledger that cannot be read counts as empty: then a key may stay
// behind in its source, and a plaintext file may be copied a second time.
package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
)

// Ledger is the ledger in one lock file.
type Ledger struct{ path string }

// In returns the ledger in the lock file at path. It does no I/O.
func In(path string) Ledger { return Ledger{path} }

// A record is a word; words are separated by spaces, and key records are in the
// order in which they were added. A key record is source/id@file, file being
// the start of the SHA-256 of the file's path. The promotion record is
// "moved:" and the revision.
const promotedPrefix = "moved:"

// records are a parsed line.
type records struct {
	keys     []string // words, the oldest first
	promoted string   // revision, or ""
}

func (l Ledger) read() (r records) {
	line, _ := filelock.ReadNote(l.path)
	for _, word := range strings.Fields(line) {
		if rev, ok := strings.CutPrefix(word, promotedPrefix); ok {
			r.promoted = rev
		} else {
			r.keys = append(r.keys, word)
		}
	}
	return r
}

// write stores r. If that does not fit, it leaves out the oldest keys: then a key that
// nothing uses is not removed. The promotion record stays, since accounts that were
// signed out must not come back.
func (l Ledger) write(r records) error {
	line := r.line()
	for len(line) > filelock.NoteSize && len(r.keys) > 1 {
		r.keys = r.keys[1:]
		line = r.line()
	}
	return filelock.WriteNote(l.path, line)
}

func (r records) line() string {
	words := r.keys
	if r.promoted != "" {
		words = append([]string{promotedPrefix + r.promoted}, words...)
	}
	return strings.Join(words, " ")
}

// Keys returns the names, source/id, of the keys recorded for the file at path,
// in the order in which they were added.
func (l Ledger) Keys(path string) (names []string) {
	for _, word := range l.read().keys {
		if name, ok := strings.CutSuffix(word, mark(path)); ok {
			names = append(names, name)
		}
	}
	return names
}

// AddKey records the key of that name for the file at path. If there is no room, it
// drops the oldest key records, of any file.
func (l Ledger) AddKey(path, name string) error {
	r, word := l.read(), name+mark(path)
	if slices.Contains(r.keys, word) {
		return nil
	}
	if name == "" || strings.ContainsAny(name, " \t\r\n@") || strings.HasPrefix(name, promotedPrefix) {
		return fmt.Errorf("ledger: %q is not the name of a key", name)
	}
	r.keys = append(r.keys, word)
	return l.write(r)
}

// RemoveKeys removes the records of the file at path for whose names done returns
// true.
func (l Ledger) RemoveKeys(path string, done func(name string) bool) error {
	r := l.read()
	before := len(r.keys)
	r.keys = slices.DeleteFunc(r.keys, func(word string) bool {
		name, ok := strings.CutSuffix(word, mark(path))
		return ok && done(name)
	})
	if len(r.keys) == before {
		return nil
	}
	return l.write(r)
}

// SetPromoted records the revision of the plaintext file that has been copied.
func (l Ledger) SetPromoted(rev string) error {
	if strings.ContainsAny(rev, " \t\r\n") {
		return fmt.Errorf("ledger: %q is not a revision", rev)
	}
	r := l.read()
	r.promoted = rev
	return l.write(r)
}

// Promoted returns the revision that was recorded last, or "". It needs no lock.
func (l Ledger) Promoted() string { return l.read().promoted }

// mark returns the end of each key record of the file at path.
func mark(path string) string {
	sum := sha256.Sum256([]byte(path))
	return "@" + hex.EncodeToString(sum[:8])
}
