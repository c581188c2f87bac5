package merge

import (
	"bytes"
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Where one side is not a token cache, only the caller can say which of the two
// is to be kept.
var (
	// ErrOurs: ours is not a cache, theirs is. MSAL Go can marshal broken
	// JSON, so ours must not replace theirs.
	ErrOurs = errors.New("what MSAL serialized is not a token cache")
	// ErrTheirs: theirs is not a cache, ours is.
	ErrTheirs = errors.New("what is stored is not a token cache")
	// ErrBoth: neither is a cache, so this may be another format altogether.
	ErrBoth = errors.New("neither what is stored nor what is to be stored is a token cache")
)

// BytesInput is what Bytes merges. It keeps none of it, but what it returns may
// be a part of it.
type BytesInput struct {
	// Base, Ours and Theirs are the three versions; empty means that nothing is
	// stored. A base that is not a cache is an unknown one.
	Base, Ours, Theirs []byte
	// BaseUnknown says that Base is not known (rule 7).
	BaseUnknown bool
	// Back is that of Input.
	Back []tokencache.Account
	// Now is that of Input.
	Now time.Time
}

// Bytes parses and merges. merged is Theirs itself if it would say the same. The
// error is nil, ErrOurs, ErrTheirs or ErrBoth; there is none for equal bytes.
func Bytes(in BytesInput) (merged []byte, changed bool, err error) {
	if bytes.Equal(in.Ours, in.Theirs) {
		return in.Theirs, false, nil
	}
	var docs Input
	docs.Back, docs.Now = in.Back, in.Now
	var oursErr, theirsErr error
	docs.Ours, oursErr = tokencache.Parse(in.Ours)
	docs.Theirs, theirsErr = tokencache.Parse(in.Theirs)
	switch {
	case oursErr != nil && theirsErr != nil:
		return nil, false, ErrBoth
	case oursErr != nil:
		return nil, false, ErrOurs
	case theirsErr != nil:
		return nil, false, ErrTheirs
	}
	switch {
	case in.BaseUnknown:
	case bytes.Equal(in.Base, in.Theirs):
		docs.Base = docs.Theirs
	case bytes.Equal(in.Base, in.Ours):
		docs.Base = docs.Ours
	default:
		docs.Base, _ = tokencache.Parse(in.Base) // nil if it is not a cache
	}
	r := Merge(docs)
	if !r.Changed {
		return in.Theirs, false, nil
	}
	return r.Merged, true, nil
}
