package keyring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// ForeignItem is an item of the Secret Service that another program keeps. It is
// found by its attributes, in whatever collection it is. For items of one's own use
// [System].
//
// Its methods return the errors of System, and behave as it does: they end with the
// context and after the timeout at the latest, and ask nobody unless [WithPrompt] is
// given. On systems without a Secret Service they fail with [Unsupported].
type ForeignItem struct {
	// Attributes are what the item is looked up by. It may have others besides. At
	// least one is required. The name of a libsecret schema is the attribute
	// "xdg:schema".
	Attributes map[string]string
	// Label is what keyring programs call the item, if Set makes it.
	Label string
}

// Get returns the item's secret, or ErrNotFound. Of several items with these
// attributes it takes the one that was changed last.
func (i ForeignItem) Get(ctx context.Context, opts ...Option) (secret []byte, err error) {
	if err = i.check(); err == nil {
		secret, err = i.get(ctx, newSettings(opts))
	}
	return secret, i.wrap("get", err)
}

// Set replaces the secret of the item that Get reads; the item keeps its label and
// all its attributes. If there is none, Set makes one with these attributes, in the
// default collection.
func (i ForeignItem) Set(ctx context.Context, secret []byte, opts ...Option) error {
	err := i.check()
	switch {
	case err != nil:
	case len(secret) > maxSecret:
		err = tooLarge(len(secret), maxSecret)
	default:
		err = i.set(ctx, newSettings(opts), secret)
	}
	return i.wrap("set", err)
}

// maxSecret is well within the 128 MiB of a D-Bus message.
const maxSecret = 64 << 20

func (i ForeignItem) check() error {
	if len(i.Attributes) == 0 {
		return errors.New("the item has no attributes to look for") // it would be any item
	}
	texts := append(slices.Collect(maps.Keys(i.Attributes)), slices.Collect(maps.Values(i.Attributes))...)
	for _, text := range append(texts, i.Label) {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			return errors.New("an attribute or the label is no text")
		}
	}
	return nil
}

func (i ForeignItem) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	where := make([]string, 0, len(i.Attributes))
	for _, key := range slices.Sorted(maps.Keys(i.Attributes)) {
		where = append(where, fmt.Sprintf("%s=%s", key, i.Attributes[key]))
	}
	return &persistence.Error{Op: op, Backend: "keyring", Location: strings.Join(where, " "),
		Err: persistence.Cause(err), Remedy: persistence.Remedy(err)}
}
