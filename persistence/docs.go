package persistence

import (
	"bytes"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// signedOut returns the accounts that the side has signed out: none if either is
// not a cache.
func signedOut(base, side []byte) []tokencache.Account {
	b, err := tokencache.Parse(base)
	if err != nil {
		return nil
	}
	s, err := tokencache.Parse(side)
	if err != nil {
		return nil
	}
	return merge.SignedOut(b, s)
}

// accountsOf returns the accounts of a cache.
func accountsOf(data []byte) ([]tokencache.Account, error) {
	d, err := tokencache.Parse(data)
	if err != nil {
		return nil, err
	}
	return d.Accounts(), nil
}

// compare reports whether ours is the same cache as base and, if not, which
// accounts it has signed out. The error is that of a merge of both.
func compare(base, ours []byte) (same bool, out []tokencache.Account, err error) {
	if bytes.Equal(base, ours) {
		return true, nil, nil
	}
	b, baseErr := tokencache.Parse(base)
	o, oursErr := tokencache.Parse(ours)
	switch {
	case oursErr != nil && baseErr != nil:
		return false, nil, merge.ErrBoth
	case oursErr != nil:
		return false, nil, merge.ErrOurs
	case baseErr != nil:
		return false, nil, nil
	case tokencache.Equal(b, o):
		return true, nil, nil
	}
	return false, merge.SignedOut(b, o), nil
}

// keepOnly returns data without the entries of accounts with another home account
// ID, and how many these are.
func keepOnly(data []byte, homeAccountID string) (kept []byte, removed int, err error) {
	d, err := tokencache.Parse(data)
	if err != nil {
		return nil, 0, merge.ErrOurs
	}
	kept, removed = d.Filter(func(_ string, e *tokencache.Entry) bool {
		id := e.Account().HomeAccountID
		return id == "" || tokencache.SameID(id, homeAccountID)
	})
	return kept, removed, nil
}
