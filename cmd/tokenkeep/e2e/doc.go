// Package e2e runs the program tokenkeep as its users do: in scripts, at a
// terminal, beside real keyrings. It is a module of its own, so that the modules
// that only its tests need are not required by those who import tokenkeep.
package e2e
