package keyring

import (
	"fmt"
	"io"
	"log/slog"
)

// The types that hold a secret, or a keyring that may hold one, print as what
// they are: with every verb, and in slog.

// describe returns what a value of this package is.
func describe(what, place string) string {
	if place == "" {
		return "keyring: " + what
	}
	return fmt.Sprintf("keyring: %s %q", what, place)
}

func (k Keys) describe() string { return describe("keys of", k.service) }

// Format writes a description, without keys, for every verb.
func (k Keys) Format(f fmt.State, _ rune) { io.WriteString(f, k.describe()) }

// LogValue returns a description, without keys.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.describe()) }

func (v versioned) describe() string {
	return describe("item", location(v.value.service, v.value.user))
}

func (v versioned) Format(f fmt.State, _ rune) { io.WriteString(f, v.describe()) }
func (v versioned) LogValue() slog.Value       { return slog.StringValue(v.describe()) }

func (s system) describe() string { return describe("the keyring of the system", "") }

func (s system) Format(f fmt.State, _ rune) { io.WriteString(f, s.describe()) }
func (s system) LogValue() slog.Value       { return slog.StringValue(s.describe()) }
