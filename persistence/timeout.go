package persistence

import (
	"context"

	"github.com/tokenkeep/tokenkeep/internal/within"
)

// bounded returns ctx, with a deadline if it has none, and what releases it.
func (c *Cache) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return within.Deadline(ctx, c.timeout)
}
