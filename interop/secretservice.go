package interop

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"

	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Item is an item of the Secret Service, as the other program names it.
type Item struct {
	// Schema is the name of the item's schema. MSAL Python, by default, takes the
	// SHA-256 of the signal's path in hexadecimal for it. "" means any schema, as
	// MSAL.NET looks for its item; then no item is made here, because after the other
	// program's next save there would be two.
	Schema string

	// Attributes are the item's other attributes. Schema or at least one attribute is
	// required.
	Attributes map[string]string

	// Label is what keyring programs call an item that is made here.
	Label string

	// Base64 says that the secret is the base64 text of the cache, as MSAL.NET and
	// microsoft-authentication-extensions-for-go store it, and not the cache itself,
	// as MSAL Python and MSAL Node do.
	Base64 bool
}

// SecretService returns the cache that msal-extensions keep in an item of the Secret
// Service (GNOME Keyring, KWallet, KeePassXC) on Linux. The signal is the path of
// the file that the other program touches when it has stored something. If there is
// no such file, nothing counts as stored, whatever the keyring holds. MSAL Python has
// the same rule, and Azure CLI signs everybody out by removing the file.
//
// Without Write, nothing is changed in the keyring, and nothing made beside the
// signal. With it, the other programs' lock (the signal's path with ".lockfile"
// appended) is held while the item is read, changed and stored: for some
// milliseconds, and no longer than three seconds. Then the signal's time is set, so
// that the other programs read again.
//
// Nobody is asked to unlock anything: for a locked keyring the error is
// ErrKeyringLocked. Where there is no Secret Service, it is ErrUnavailable. SecretService
// itself does no I/O.
//
// It has been tried with GNOME Keyring, both ways beside Debian's msal-extensions 1.0
// for Python, and with microsoft-authentication-extensions-for-go 0.1.1. MSAL.NET and
// MSAL Node, KWallet and KeePassXC have not been run.
func SecretService(item Item, signal string, o Options) (*Store, error) {
	return secretService("Secret Service item", item, signal, o)
}

func secretService(backend string, item Item, signal string, o Options) (*Store, error) {
	p := place{backend: backend, path: signal, item: &item}
	if item.Schema == "" && len(item.Attributes) == 0 {
		return nil, (&Store{place: p}).fail("open", remedy.Errorf("Give the schema or the attributes that the other program uses.", "the item has no attributes to look for"))
	}
	item.Attributes = maps.Clone(item.Attributes)
	return openPlace(p, o)
}

const schemaAttribute = "xdg:schema"

func (i *Item) foreign() keyring.ForeignItem {
	attributes := maps.Clone(i.Attributes)
	if i.Schema != "" {
		if attributes == nil {
			attributes = map[string]string{}
		}
		attributes[schemaAttribute] = i.Schema
	}
	return keyring.ForeignItem{Attributes: attributes, Label: i.Label}
}

// load returns the cache that is in the item, or ErrNotFound.
func (i *Item) load(ctx context.Context) ([]byte, error) {
	secret, err := i.foreign().Get(ctx)
	if err != nil {
		return nil, err
	}
	secret = bytes.TrimSpace(secret)
	plain, decodeErr := base64.StdEncoding.AppendDecode(nil, secret)
	isBase64 := decodeErr == nil && lens.Whole(plain)
	switch {
	case len(secret) == 0:
		return nil, persistence.ErrNotFound
	case len(secret) > maxSize:
		return nil, fmt.Errorf("%w: %d bytes; the maximum is %d", persistence.ErrTooLarge, len(secret), maxSize)
	case i.Base64 && isBase64:
		return plain, nil
	case i.Base64 && lens.Whole(secret):
		return nil, remedy.Errorf("Leave Item.Base64 unset: this is how MSAL Python and MSAL Node store it.", "%w: the secret is not base64 but a cache", persistence.ErrCorrupt)
	case !i.Base64 && isBase64:
		return nil, remedy.Errorf("Set Item.Base64: this is how MSAL.NET stores it.", "%w: the secret is the base64 text of a cache", persistence.ErrCorrupt)
	case i.Base64:
		return nil, signInThere("%w: the secret is not the base64 text of a cache", persistence.ErrCorrupt)
	}
	return secret, nil
}
