package persistence

import (
	"context"
	"errors"
	"io/fs"
	"strings"
)

// The classes of error, to be tested with [errors.Is]. They are chosen by what
// a caller does next. MSAL Go wraps the errors of its cache, so the test also works on
// what AcquireTokenSilent and its other calls return.
var (
	// ErrNotFound: nothing is stored. It is also an fs.ErrNotExist. Load
	// returns it where nobody has signed in yet.
	ErrNotFound error = &class{"nothing is stored", fs.ErrNotExist}
	// ErrUnavailable: this backend cannot work in this environment (no D-Bus,
	// no keyring service, an unsupported platform). Another backend may. If it is
	// there and did not answer in time, the error is also context.DeadlineExceeded.
	ErrUnavailable error = &class{"not available in this environment", nil}
	// ErrKeyringLocked: the keyring is there, but locked, and nobody can be
	// asked to unlock it. What is stored is sound; try again later.
	ErrKeyringLocked error = &class{"the keyring is locked", nil}
	// ErrCorrupt: the stored bytes are certainly not what was saved. They cannot
	// be used any more.
	ErrCorrupt error = &class{"the stored data is damaged", nil}
	// ErrWrongKey: the stored bytes are sound and need another key, as
	// after a mistyped passphrase. Try again with another key.
	ErrWrongKey error = &class{"wrong key or passphrase", nil}
	// ErrKeyMissing: the place where the key should be is open and has no such
	// key. What is stored can no longer be read, unless the key comes back.
	ErrKeyMissing error = &class{"the key is gone", nil}
	// ErrUnsupportedVersion: written by a newer version of tokenkeep. Update
	// this program; what is stored is sound.
	ErrUnsupportedVersion error = &class{"written by a newer version", nil}
	// ErrTooLarge: more data than the backend takes. Nothing was changed.
	ErrTooLarge error = &class{"too large", nil}
	// ErrConflict: what is stored has changed since its revision was read.
	// Nothing was changed; load, merge and try again.
	ErrConflict error = &class{"changed by another writer", nil}
	// ErrLockTimeout: the lock was still held by others when the context ended. The
	// error names the process that holds it, as far as it is known, and is
	// also the context's error.
	ErrLockTimeout error = &class{"timed out waiting for the lock", nil}
)

// class is a sentinel that may also stand for one of the standard library's.
type class struct {
	text string
	also error
}

func (c *class) Error() string        { return c.text }
func (c *class) Is(target error) bool { return c.also != nil && target == c.also }

// Error is the error of every backend, in the manner of [fs.PathError]: what
// was tried, on what, where, why it failed and what a person can do about it.
// No field ever holds a secret.
type Error struct {
	Op       string // "load", "save", "delete", "revision", "lock", "open", …
	Backend  string // as in Description
	Location string // as in Description
	Err      error  // the cause; matches one of the classes where one fits
	Remedy   string // a sentence for a person; may be ""
}

// Error returns one line: operation, backend, location, cause and remedy.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("tokenkeep: ")
	b.WriteString(e.Op)
	for _, s := range []string{e.Backend, e.Location} {
		if s != "" {
			b.WriteString(" ")
			b.WriteString(s)
		}
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	if e.Remedy != "" {
		b.WriteString(". ")
		b.WriteString(e.Remedy)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Remedy returns what a person can do about err: sentences, or "" where nothing
// is known. Where err wraps several errors, the first remedy found counts, from
// the outside in.
func Remedy(err error) string {
	switch e := err.(type) {
	case nil:
		return ""
	case *Error:
		if e.Remedy != "" {
			return e.Remedy
		}
	case interface{ Remedy() string }:
		if r := e.Remedy(); r != "" {
			return r
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return Remedy(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if r := Remedy(err); r != "" {
				return r
			}
		}
	}
	return ""
}

// Cause returns why err happened, without the operations, backends, places and
// remedies that an [Error] adds. It returns err itself if err wraps no Error.
func Cause(err error) error {
	var e *Error
	for errors.As(err, &e) && e.Err != nil {
		err = e.Err
	}
	return err
}

// ClassOf returns the word for the class of err: "unavailable", "timeout" for what
// is there and did not answer in time, "locked", "not-found", "corrupt",
// "wrong-key", "key-missing", "unsupported-version", "too-large", "conflict",
// "lock-timeout", "canceled", or "other". It is "" for nil. The words stay the same
// in all later versions 1; new ones may be added.
func ClassOf(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range []struct {
		err  error
		name string
	}{
		{ErrNotFound, "not-found"}, {ErrKeyringLocked, "locked"}, {ErrCorrupt, "corrupt"}, {ErrWrongKey, "wrong-key"},
		{ErrKeyMissing, "key-missing"}, {ErrUnsupportedVersion, "unsupported-version"}, {ErrTooLarge, "too-large"},
		{ErrConflict, "conflict"}, {ErrLockTimeout, "lock-timeout"}, {context.DeadlineExceeded, "timeout"},
		{ErrUnavailable, "unavailable"}, {context.Canceled, "canceled"},
	} {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return "other"
}
