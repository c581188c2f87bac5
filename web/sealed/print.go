package sealed

import (
	"fmt"
	"io"
	"log/slog"
)

// String returns a description without the secret.
func (k Key) String() string { return fmt.Sprintf("sealed.Key %q", k.ID) }

// Format writes the description for every verb.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) } //nolint:errcheck // as package fmt

// LogValue returns the description.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns the description, so that no encoder writes the secret.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// String returns a description without the secrets.
func (*Keys) String() string { return "sealed.Keys" }

// Format writes the description for every verb.
func (k *Keys) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) } //nolint:errcheck // as package fmt

// LogValue returns the description.
func (k *Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }
