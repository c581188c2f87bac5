package sqlstore

import (
	"fmt"
	"io"
	"log/slog"
)

// String returns a description: a Store leads to what it keeps, and must not print
// it.
func (*Store) String() string { return "sqlstore.Store" }

// Format writes the description for every verb.
func (s *Store) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) } //nolint:errcheck // as package fmt

// LogValue returns the description.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }
