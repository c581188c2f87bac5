package persistence

import (
	"context"
	"errors"
	"io/fs"

	"github.com/tokenkeep/tokenkeep/internal/adopt"
	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/transfer"
)

// Adopt takes over the MSAL cache that a program has kept elsewhere: in a file of
// MSAL's extensions, in a keyring item of another library, in a file encrypted by
// Windows' DPAPI. read returns it, decrypted; an error that is fs.ErrNotExist says
// that there is none, and then Adopt does nothing and returns nil. What read returned
// is merged with what is stored: of two tokens the newer stays. When the result can
// be read back, remove is called. stored reports whether the cache was changed.
//
// A process may be killed at any point: then the next call goes on. If remove fails,
// the sign-in is stored, the error wraps remove's, and the next call only tries to
// remove again: accounts that were signed out meanwhile do not come back. Adopt holds
// no lock of the old program: what that program saves between read and remove is lost.
//
// What MSAL cannot take is left out, with a warning in the log that names it.
//
// Adopt fails with ErrCorrupt if read returns something else than an MSAL cache, and
// also if what is stored here is damaged. Only in the first case is the Op of its
// [Error] "adopt". Errors of read are returned as they are.
func (c *Cache) Adopt(ctx context.Context, read func(context.Context) ([]byte, error), remove func(context.Context) error) (stored bool, err error) {
	data, err := read(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := tokencache.Parse(data); err != nil || len(tokencache.Trim(data)) == 0 {
		return false, c.fail("adopt", ErrCorrupt, "Nothing was changed. Remove the old tokens and sign in again.")
	}
	return c.adopt(ctx, data, func(current []byte) ([]byte, error) {
		merged, changed, refused, err := transfer.Merge(nil, data, current)
		if err != nil {
			return nil, c.unmergeable(err)
		}
		if len(refused) > 0 {
			c.report("left out", leftOut+tokencache.Names(refused), nil)
		}
		if !changed {
			return nil, nil
		}
		return merged, nil
	}, remove)
}

// Adopt takes over a value that a program has kept elsewhere, and stores it under a
// key unless that has a value already. It is [Cache.Adopt] in all else. Any bytes
// are a value.
func (e *Entries) Adopt(ctx context.Context, key string, read func(context.Context) ([]byte, error), remove func(context.Context) error) (stored bool, err error) {
	value, err := read(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	of := quote.Text(e.section) + quote.Text(key) + string(value)
	return e.cache.adopt(ctx, []byte(of), func(current []byte) ([]byte, error) {
		d, err := tokencache.Parse(current)
		if err != nil {
			return nil, e.noCache("adopt")
		}
		if there, err := e.find("adopt", d, key); err != nil || there != nil {
			return nil, err
		}
		return e.with(current, key, value)
	}, remove)
}

func (c *Cache) adopt(ctx context.Context, of []byte, put func([]byte) ([]byte, error), remove func(context.Context) error) (bool, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	stored, err := adopt.Run(ctx, c, of, put, remove)
	var kept *adopt.RemoveError
	var own *Error
	switch {
	case err == nil:
	case errors.As(err, &kept):
		err = c.fail("adopt", err, "The sign-in is stored. Remove the old copy by hand; the next start tries again.")
	case errors.Is(err, adopt.ErrReadBack):
		err = c.fail("adopt", err, "Try again.")
	case errors.Is(err, tokencache.ErrFormat):
		err = c.fail("save", ErrCorrupt, "Keep the tokens in a cache that nothing else is stored in.")
	case !errors.As(err, &own):
		err = c.fail("adopt", err, "")
	}
	return stored, err
}
