// Package dpapi calls the Data Protection API of Windows, which encrypts for the
// user who runs the program. On other systems its functions fail with
// ErrUnavailable, which is also an errors.ErrUnsupported.
package dpapi

// Refused is Windows' refusal to decrypt: the data is another user's or another
// machine's, or is damaged, or this session cannot open the user's protection.
// Windows does not tell which. It has no class.
type Refused struct{ Err error }

// Error returns the system's own words.
func (e *Refused) Error() string { return e.Err.Error() }
