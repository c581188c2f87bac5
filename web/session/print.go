package session

import (
	"fmt"
	"io"
	"log/slog"
)

// String returns a description: a Session leads to what it keeps, and must not print
// it.
func (*Session) String() string { return "session.Session" }

// Format writes the description for every verb.
func (s *Session) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) } //nolint:errcheck // as package fmt

// LogValue returns the description.
func (s *Session) LogValue() slog.Value { return slog.StringValue(s.String()) }
