package encrypted

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// What holds a key, a passphrase or a way to one formats itself as its
// description, whatever the verb: somebody will print it by mistake.

// String returns the File's description: it is what package fmt prints of it.
func (f *File) String() string {
	if f == nil || f.store == nil {
		return "encrypted file"
	}
	d := f.Describe()
	return fmt.Sprintf("encrypted file %s (key from %s)", d.Location, d.KeySource)
}

// Format writes the File's description, whatever the verb.
func (f *File) Format(s fmt.State, _ rune) { io.WriteString(s, f.String()) }

// LogValue returns the File's description.
func (f *File) LogValue() slog.Value { return slog.StringValue(f.String()) }

var (
	_ fmt.Formatter  = (*File)(nil)
	_ slog.LogValuer = (*File)(nil)
)

// described formats a source that embeds it as the text that it holds.
type described string

func (d described) String() string             { return string(d) }
func (d described) Format(s fmt.State, _ rune) { io.WriteString(s, string(d)) }
func (d described) LogValue() slog.Value       { return slog.StringValue(string(d)) }

// Describe implements [persistence.Describer].
func (f *File) Describe() persistence.Description {
	return persistence.Description{Backend: backend, Location: f.store.Path(), Encrypted: true, KeySource: f.keySource().Source()}
}
