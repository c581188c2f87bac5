// Package fallback is what remains where nothing safer works: the plaintext
// file that warns, and the choice between backends that keeps every refusal
// with its reason and its remedy.
//
// Most programs leave both to tokenkeep.Open. [Choose] is for programs with
// candidates of their own.
package fallback
