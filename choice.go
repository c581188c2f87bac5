package tokenkeep

import (
	"context"
	"log/slog"
	"strings"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Choice describes where a cache is stored, and why there: for a program's own
// settings page, or for a problem report, where it can be kept as JSON. Nothing in
// it is secret.
type Choice struct {
	// InUse is where the cache is stored.
	InUse persistence.Description `json:"inUse"`
	// By says who chose it.
	By ChosenBy `json:"by"`
	// Refusals are the candidates that were preferred and did not work, in
	// order, each with its reason and its remedy. They are empty unless By is
	// ByOrder, because otherwise no other candidate was tried. What the program has
	// not enabled is no candidate. As JSON each has candidate, class, reason and
	// remedy.
	Refusals []fallback.Refusal `json:"refusals,omitempty"`
}

// ChosenBy says who made a [Choice].
type ChosenBy string

// The values of ChosenBy.
const (
	ByOrder  ChosenBy = "order"  // the order of preference: Config.Order, or the platform's
	ByUser   ChosenBy = "user"   // the end user, through Config.Store
	ByStored ChosenBy = "stored" // a file was there already: an encrypted one, or a plaintext one where nothing can be written
)

// ChoiceOf returns where the cache is stored now. That can change while the
// program runs: if it stores plaintext and another process finds something safer,
// it follows. ok is false for a cache that [Open] did not return. ChoiceOf does no
// I/O.
func ChoiceOf(c *persistence.Cache) (choice Choice, ok bool) {
	s, ok := c.Backend().(*store)
	if !ok {
		return Choice{}, false
	}
	return s.current.Load().choice(), true
}

// inUse is the backend in use, and why.
type inUse struct {
	backend
	by       ChosenBy
	refusals []fallback.Refusal
}

func (u *inUse) choice() Choice {
	return Choice{InUse: u.Describe(), By: u.by, Refusals: append([]fallback.Refusal(nil), u.refusals...)}
}

// use makes b the backend in use.
func (s *store) use(b backend, by ChosenBy, refusals []fallback.Refusal) {
	if s.cfg.Store != "" {
		by = ByUser
	}
	s.current.Store(&inUse{b, by, refusals})
}

// logChoice logs the choice: at the level Info if something preferred was refused, the
// choice is news and no warning in the log says so. Otherwise it logs at Debug, because
// then there is nothing to do about it.
func (s *store) logChoice(ctx context.Context, news bool) {
	c, level := s.current.Load().choice(), slog.LevelDebug
	attrs := []slog.Attr{
		slog.String("backend", c.InUse.Backend), slog.String("location", c.InUse.Location),
		slog.Bool("encrypted", c.InUse.Encrypted), slog.String("chosenBy", string(c.By)),
	}
	if c.InUse.KeySource != "" {
		attrs = append(attrs, slog.String("keySource", c.InUse.KeySource))
	}
	if len(c.Refusals) > 0 {
		if news && !(s.cfg.Warn == nil && isWarnedOf(c.InUse)) { // else the same log says it already
			level = slog.LevelInfo
		}
		var refused []any
		for _, r := range c.Refusals {
			refused = append(refused, slog.Group(r.Candidate, "class", persistence.ClassOf(r.Err), "reason", r.Reason(), "remedy", r.Remedy()))
		}
		attrs = append(attrs, slog.Group("refused", refused...))
	}
	if level == slog.LevelDebug { // for the program's author
		if not := s.cfg.notEnabled(); len(not) > 0 {
			attrs = append(attrs, slog.String("notEnabled", strings.Join(not, ",")))
		}
	}
	s.logger().LogAttrs(ctx, level, "tokenkeep: chose where to store the cache", attrs...)
}

func (s *store) logger() *slog.Logger {
	if s.cfg.Logger != nil {
		return s.cfg.Logger
	}
	return slog.Default()
}
