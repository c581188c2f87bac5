package firstlevel

import (
	"fmt"
	"io"
	"log/slog"
)

// String returns a description: a Memory leads to what it keeps, and must not print
// it.
func (*Memory) String() string { return "firstlevel.Memory" }

// Format writes the description for every verb.
func (m *Memory) Format(f fmt.State, _ rune) { io.WriteString(f, m.String()) } //nolint:errcheck // as package fmt

// LogValue returns the description.
func (m *Memory) LogValue() slog.Value { return slog.StringValue(m.String()) }
