// Package opaque prints values that hold secrets, or a pointer to one, as their
// description.
//
// A type that uses it has three methods:
//
//	func (t T) String() string                 { return description }
//	func (t T) Format(s fmt.State, verb rune)  { opaque.Format(s, verb, t.String()) }
//	func (t T) LogValue() slog.Value           { return slog.StringValue(t.String()) }
//
// That is not enough if T is in an unexported field of another struct. Package fmt calls
// no method there, and it follows a pointer for a verb that does not fit. Of a func it
// prints only the address. So T keeps its secrets behind [Hide].
package opaque

import "fmt"

// Format prints text for every verb, quoted for %q, with the width and the flags
// of s.
func Format(s fmt.State, verb rune, text string) {
	if verb != 'q' {
		verb = 's'
	}
	fmt.Fprintf(s, fmt.FormatString(s, verb), text)
}

// Hide returns a func that returns v.
func Hide[T any](v T) func() T { return func() T { return v } }
