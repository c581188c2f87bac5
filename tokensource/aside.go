package tokensource

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// setAside renames stored data that is not a token cache, if the backend can do that,
// and reports whether to try again. The Cache does the same for MSAL, so that nobody
// has to do it by hand. l, or slog's default if l is nil, says where the data is now.
func setAside(ctx context.Context, c *persistence.Cache, l *slog.Logger, why error) bool {
	if !errors.Is(why, errFormat) {
		return false
	}
	b, ok := c.Backend().(interface {
		persistence.Versioned
		persistence.SetAsider
	})
	if !ok {
		return false
	}
	data, rev, err := b.LoadRevision(ctx)
	if errors.Is(err, persistence.ErrNotFound) { // another process was faster
		return true
	}
	if _, bad := tokencache.Parse(tokencache.Trim(data)); err != nil || bad == nil {
		return false // something else is wrong with it, and it stays
	}
	to, err := b.SetAside(ctx, rev)
	if err == nil && to != "" { // else the backend has told its user
		if l == nil {
			l = slog.Default()
		}
		l.Warn("tokenkeep: what was stored is not a token cache, and was renamed to " + to)
	}
	return err == nil || errors.Is(err, persistence.ErrConflict)
}
