package persistence

import (
	"fmt"
	"log/slog"

	"github.com/tokenkeep/tokenkeep/internal/opaque"
	"github.com/tokenkeep/tokenkeep/internal/quote"
)

// What leads to tokens formats itself as its description, whatever the verb:
// somebody will print it by mistake.

// String returns a description of the Cache: what keeps it, and where.
func (c *Cache) String() string {
	if c == nil || c.store == nil {
		return "cache"
	}
	return described("cache", c.Describe())
}

// Format writes the description, whatever the verb.
func (c *Cache) Format(s fmt.State, verb rune) { opaque.Format(s, verb, c.String()) }

// LogValue returns the description.
func (c *Cache) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String returns a description of the Partitioned.
func (*Partitioned) String() string { return "partitioned cache" }

// Format writes the description, whatever the verb.
func (p *Partitioned) Format(s fmt.State, verb rune) { opaque.Format(s, verb, p.String()) }

// LogValue returns the description.
func (p *Partitioned) LogValue() slog.Value { return slog.StringValue(p.String()) }

// String returns a description of the Entries: their section, and what keeps it.
func (e *Entries) String() string {
	if e == nil || e.cache == nil {
		return "entries"
	}
	return "entries of " + quote.Text(e.section) + " in " + e.cache.String()
}

// Format writes the description, whatever the verb.
func (e *Entries) Format(s fmt.State, verb rune) { opaque.Format(s, verb, e.String()) }

// LogValue returns the description.
func (e *Entries) LogValue() slog.Value { return slog.StringValue(e.String()) }

func described(what string, d Description) string {
	for _, s := range []string{d.Backend, d.Location} {
		if s != "" {
			what += " " + s
		}
	}
	return what
}
