// Package env is for tests that depend on their machine: what they do where something
// is missing or slow, and what they give to child processes.
package env

import (
	"os"
	"testing"
)

// Require goes on if ok. If not, it skips the test with why as the reason,
// which says what is missing and how to get it. Where the environment variable
// CI is "true" it fails the test instead: there, everything must be installed.
func Require(t testing.TB, ok bool, why string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("CI") == "true":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}
