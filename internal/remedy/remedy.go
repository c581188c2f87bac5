// Package remedy attaches to an error what a person can do about it. A caller that
// knows where the error happened makes a persistence.Error of it, with persistence.Cause
// and persistence.Remedy.
package remedy

import "fmt"

// Error is an error with its remedy. Its text is that of the error alone.
type Error struct {
	err    error
	remedy string
}

// With returns err with a remedy: sentences for a person.
func With(remedy string, err error) error { return &Error{err, remedy} }

// Errorf is With for an error that fmt.Errorf makes.
func Errorf(remedy, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), remedy}
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Remedy returns what a person can do about it.
func (e *Error) Remedy() string { return e.remedy }
