package tokensource

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Keys returns the keys of the cache that have a token of this package, sorted: who
// is signed in, good or expired, of all programs that share the cache. If nothing is
// stored, it returns no keys and no error. A sign-in that could not be stored yet is not
// among them. [persistence.Cache.Watch] tells when the keys change, and
// [persistence.Cache.SignOutAll] removes their tokens.
func Keys(ctx context.Context, c *persistence.Cache) ([]string, error) {
	data, err := c.Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := tokencache.Parse(data)
	if err != nil && setAside(ctx, c, nil, errFormat) {
		return Keys(ctx, c)
	}
	if err != nil {
		at := c.Describe()
		return nil, &persistence.Error{Op: "load", Backend: at.Backend, Location: at.Location,
			Err: fmt.Errorf("%w: %w", persistence.ErrCorrupt, errFormat), Remedy: "Move the stored data away and sign in again."}
	}
	keys := d.Keys(section)
	slices.Sort(keys)
	return keys, nil
}
