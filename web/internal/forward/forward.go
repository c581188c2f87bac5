// Package forward passes on the abilities of a Persistence through what wraps it.
package forward

import (
	"context"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Locks returns v with the locks of inner, if it has any: a Locker or a
// NamedLocker exactly if inner is.
func Locks(v persistence.Versioned, inner persistence.Persistence) persistence.Versioned {
	switch l := inner.(type) {
	case persistence.NamedLocker:
		return named{locking{v, l}, l}
	case persistence.Locker:
		return locking{v, l}
	}
	return v
}

type locking struct {
	persistence.Versioned
	locker persistence.Locker
}

// Lock implements [persistence.Locker].
func (l locking) Lock(ctx context.Context) (func() error, error) { return l.locker.Lock(ctx) }

// Describe implements [persistence.Describer].
func (l locking) Describe() persistence.Description { return persistence.Describe(l.Versioned) }

type named struct {
	locking
	locker persistence.NamedLocker
}

// LockName implements [persistence.NamedLocker].
func (n named) LockName(ctx context.Context, name string) (func() error, error) {
	return n.locker.LockName(ctx, name)
}
