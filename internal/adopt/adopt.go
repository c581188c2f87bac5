// Package adopt takes over data that another program, or an earlier version of this
// one, keeps elsewhere: it stores the data, reads it back, and only then removes it
// there.
package adopt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// section has an entry for each origin that is stored and not yet removed there, by
// the digest of what was taken from it. If the removal fails, it keeps a later call
// from bringing back what the user has signed out of meanwhile.
const section = "TokenkeepAdopted"

// Store is what Run needs of a persistence.Cache.
type Store interface {
	Load(ctx context.Context) ([]byte, error)
	Update(ctx context.Context, edit func(current []byte) ([]byte, error)) error
}

// RemoveError is the error of the function that removes. What it was to remove is
// stored.
type RemoveError struct{ Err error }

func (e *RemoveError) Error() string {
	return fmt.Sprintf("what is stored here now cannot be removed where it was: %v", e.Err)
}

// Unwrap returns the cause.
func (e *RemoveError) Unwrap() error { return e.Err }

// ErrReadBack says that the store does not return what was saved.
var ErrReadBack = errors.New("what was saved does not read back, and nothing was removed")

// Run stores what was taken from an origin, and has it removed there. put returns
// the store's data with it, or nil if the store has something newer. of is what was
// taken, with its place in the store. stored reports whether put has changed
// anything.
func Run(ctx context.Context, s Store, of []byte, put func(current []byte) ([]byte, error), remove func(context.Context) error) (stored bool, err error) {
	digest := sha256.Sum256(of)
	key := hex.EncodeToString(digest[:])
	err = s.Update(ctx, func(current []byte) ([]byte, error) {
		stored = false
		if noted(current, key) {
			return nil, nil
		}
		next, err := put(current)
		if err != nil {
			return nil, err
		}
		if stored = next != nil; !stored {
			next = current
		}
		d, err := tokencache.Parse(next)
		if err != nil {
			return nil, err
		}
		return d.Set(section, key, []byte(`{"adopted_at":"`+strconv.FormatInt(time.Now().Unix(), 10)+`"}`))
	})
	if err != nil {
		return false, err
	}
	data, err := s.Load(ctx)
	if err != nil {
		return stored, err
	}
	if !noted(data, key) {
		return stored, ErrReadBack
	}
	if err := remove(ctx); err != nil {
		return stored, &RemoveError{err}
	}
	// Without this, data that somebody puts back there on purpose would be removed and
	// not stored.
	return stored, s.Update(ctx, func(current []byte) ([]byte, error) {
		if !noted(current, key) {
			return nil, nil
		}
		d, err := tokencache.Parse(current)
		if err != nil {
			return nil, err
		}
		return d.Delete(section, key)
	})
}

func noted(data []byte, key string) bool {
	d, err := tokencache.Parse(data)
	if err != nil {
		return false
	}
	e, err := d.Get(section, key)
	return err == nil && e != nil
}
