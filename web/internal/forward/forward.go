// Package forward passes the abilities of a Persistence on through a wrapper.
package forward

import (
	"context"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// SetAside is the method of a [persistence.SetAsider].
type SetAside func(ctx context.Context, rev string) (place string, err error)

// Abilities returns v, which wraps inner, as a Locker, a NamedLocker, a Leaser or a
// SetAsider exactly if inner is. Locks and leases are inner's. aside is used where inner
// is a SetAsider; nil means inner's own.
func Abilities(v persistence.Versioned, inner persistence.Persistence, aside SetAside) persistence.Versioned {
	var (
		own, sets      = inner.(persistence.SetAsider)
		leaser, leases = inner.(persistence.Leaser)
		locker, locks  = inner.(persistence.Locker)
		named, names   = inner.(persistence.NamedLocker)
		d              = described{v}
	)
	if sets {
		if aside == nil {
			aside = own.SetAside
		}
		a := setAsider{d, aside}
		switch {
		case names && leases:
			return struct {
				setAsider
				persistence.NamedLocker
				persistence.Leaser
			}{a, named, leaser}
		case names:
			return struct {
				setAsider
				persistence.NamedLocker
			}{a, named}
		case locks && leases:
			return struct {
				setAsider
				persistence.Locker
				persistence.Leaser
			}{a, locker, leaser}
		case locks:
			return struct {
				setAsider
				persistence.Locker
			}{a, locker}
		case leases:
			return struct {
				setAsider
				persistence.Leaser
			}{a, leaser}
		}
		return a
	}
	switch {
	case names && leases:
		return struct {
			described
			persistence.NamedLocker
			persistence.Leaser
		}{d, named, leaser}
	case names:
		return struct {
			described
			persistence.NamedLocker
		}{d, named}
	case locks && leases:
		return struct {
			described
			persistence.Locker
			persistence.Leaser
		}{d, locker, leaser}
	case locks:
		return struct {
			described
			persistence.Locker
		}{d, locker}
	case leases:
		return struct {
			described
			persistence.Leaser
		}{d, leaser}
	}
	return v
}

type described struct{ persistence.Versioned }

// Describe implements [persistence.Describer].
func (d described) Describe() persistence.Description { return persistence.Describe(d.Versioned) }

type setAsider struct {
	described
	aside SetAside
}

// SetAside implements [persistence.SetAsider].
func (s setAsider) SetAside(ctx context.Context, rev string) (place string, err error) {
	return s.aside(ctx, rev)
}
