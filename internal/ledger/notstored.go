package ledger

import "errors"

// notStored is the error of a key that was not made, and not stored.
type notStored struct{ error }

func (e notStored) Unwrap() error { return e.error }

// NotStored marks the error of a key source that could not make a key, and that has
// certainly stored nothing: the key's record is not needed any more.
func NotStored(err error) error { return notStored{err} }

// IsNotStored reports whether err is marked by [NotStored].
func IsNotStored(err error) bool { return errors.As(err, new(notStored)) }
