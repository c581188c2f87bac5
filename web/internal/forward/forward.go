// Package forward passes the abilities of a Persistence on through a wrapper.
package forward

import "github.com/tokenkeep/tokenkeep/persistence"

// Abilities returns v with the locks and leases of inner: it is a Locker, a
// NamedLocker or a Leaser exactly if inner is.
func Abilities(v persistence.Versioned, inner persistence.Persistence) persistence.Versioned {
	leaser, leases := inner.(persistence.Leaser)
	locker, locks := inner.(persistence.Locker)
	named, names := inner.(persistence.NamedLocker)
	switch d := (described{v}); {
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
