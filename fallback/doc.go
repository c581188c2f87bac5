// Package fallback chooses between ways to keep a token cache, and has the one
// that comes last: a plaintext file that warns. [Choose] takes the first candidate
// that works and says why those before it do not; [InsecurePlaintextFile] keeps
// tokens unencrypted and tells the user so.
//
// tokenkeep.Open does all of this by itself. This package is for programs that put
// their own candidates together.
package fallback
