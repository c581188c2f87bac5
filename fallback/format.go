package fallback

import (
	"fmt"
	"log/slog"

	"github.com/tokenkeep/tokenkeep/internal/opaque"
)

// String returns a description: that it is plaintext, and its path.
func (f *InsecurePlaintextFile) String() string {
	if f == nil || f.store == nil {
		return "plaintext file"
	}
	return "plaintext file " + f.store.Path()
}

// Format writes the description, whatever the verb.
func (f *InsecurePlaintextFile) Format(s fmt.State, verb rune) { opaque.Format(s, verb, f.String()) }

// LogValue returns the description.
func (f *InsecurePlaintextFile) LogValue() slog.Value { return slog.StringValue(f.String()) }
