package interop

import (
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// place is where another program's cache lies, and in what form.
type place struct {
	backend string
	path    string // as it was given: the lock file lies beside it

	// content returns the cache that is in the bytes of the file; nil: they are the
	// cache. It fails with ErrCorrupt, ErrWrongKey or ErrKeyMissing also for a file
	// that is just being written. Bytes that hold nothing are not given to it.
	content func(ctx context.Context, file []byte) ([]byte, error)

	// item is the item of the Secret Service that has the cache; nil: the file has it.
	// Then the file only signals by its time that the item has changed.
	item *Item

	// overwritten says why a save here would not last; "": it would.
	overwritten string
}

// fetch returns what is stored now, as JSON.
func (p *place) fetch(ctx context.Context) ([]byte, stamp, error) {
	if p.item != nil {
		// The other programs store first and signal then, so the stamp comes first:
		// a later signal leads to another look.
		at, err := stampOf(p.path)
		if err != nil {
			return nil, stamp{}, err
		}
		data, err := p.item.load(ctx)
		return data, at, err
	}
	raw, at, err := readFile(ctx, p.path, maxSize)
	if err == nil && p.content != nil && len(raw) > 0 {
		raw, err = p.content(ctx, raw)
	}
	return raw, at, err
}

// mayBeTorn reports whether err can come of a file that is just being written.
func mayBeTorn(err error) bool {
	for _, class := range []error{persistence.ErrCorrupt, persistence.ErrWrongKey, persistence.ErrKeyMissing} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// encrypted reports whether the other program encrypts what it stores.
func (p *place) encrypted() bool { return p.content != nil || p.item != nil }
