package persistence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Entries are small secrets of a program's own, beside the tokens of a [Cache]: a
// client secret, a private key, a registration. Each has a name, its key. They are
// stored and locked like the tokens, and merged with them: neither MSAL nor another
// process that saves at the same time loses one. Methods are safe for concurrent
// use, and fail with an [*Error], also for storage trouble: with ErrCorrupt where the
// section, or all that is stored, is something else.
//
// The whole cache is read with each token, so entries should stay small: kilobytes.
//
// A sign-out removes no entry. [Cache.Delete] removes all.
type Entries struct {
	cache   *Cache
	section string
}

// taken are the sections that others use.
var taken = []string{tokencache.AccessToken, tokencache.CAEAccessToken, tokencache.RefreshToken, tokencache.IDToken, tokencache.AccountSection, tokencache.AppMetadata, tokencache.OAuth2Token}

// Entries returns the entries in a section of c. Programs that share the cache and
// do not know each other need sections of their own, so its name should be the
// program's, such as "contoso-cli". Entries does no I/O. It fails if the name is
// empty, not UTF-8, begins with "Tokenkeep" or is one that MSAL or this module uses,
// in any case.
func (c *Cache) Entries(section string) (*Entries, error) {
	var wrong string
	switch {
	case section == "":
		wrong = "the section's name is empty"
	case !utf8.ValidString(section):
		wrong = "the section's name is not UTF-8"
	case strings.HasPrefix(strings.ToLower(section), "tokenkeep"):
		wrong = "names that begin with Tokenkeep are not for programs"
	}
	for _, name := range taken {
		if strings.EqualFold(section, name) {
			wrong = "the section " + name + " has other tokens in it"
		}
	}
	if wrong != "" {
		return nil, c.fail("open", errors.New(wrong), "Name the section after the program.")
	}
	return &Entries{c, section}, nil
}

// stored is how an entry is stored: an object, as all entries of a cache are.
type stored struct {
	Data *[]byte `json:"data"` // base64
}

// Get returns the value of a key, or ErrNotFound.
func (e *Entries) Get(ctx context.Context, key string) ([]byte, error) {
	d, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	value, err := e.find("load", d, key)
	if err == nil && value == nil {
		err = e.cache.fail("load", fmt.Errorf("%w under the key %s", ErrNotFound, quote.Text(key)), "")
	}
	return value, err
}

// Set stores a value under a key, instead of what was there. A key is any UTF-8
// text, a value any bytes; nil is stored as no bytes.
func (e *Entries) Set(ctx context.Context, key string, value []byte) error {
	return e.cache.Update(ctx, func(current []byte) ([]byte, error) { return e.with(current, key, value) })
}

// Delete removes the value of a key. Deleting what is not there succeeds.
func (e *Entries) Delete(ctx context.Context, key string) error {
	return e.cache.Update(ctx, func(current []byte) ([]byte, error) {
		d, err := tokencache.Parse(current)
		if err != nil {
			return nil, e.noCache("delete")
		}
		at, err := d.Get(e.section, key)
		if err != nil {
			return nil, e.foreign("delete")
		}
		if at == nil {
			return nil, nil
		}
		return d.Delete(e.section, key)
	})
}

// Keys returns the keys that have values, sorted. There are none where nothing is
// stored.
func (e *Entries) Keys(ctx context.Context) ([]string, error) {
	d, err := e.load(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := d.Get(e.section, ""); err != nil {
		return nil, e.foreign("load")
	}
	return slices.Sorted(slices.Values(d.Keys(e.section))), nil
}

func (e *Entries) load(ctx context.Context) (*tokencache.Doc, error) {
	data, err := e.cache.Load(ctx)
	if err != nil {
		return nil, err
	}
	d, err := tokencache.Parse(data)
	if err != nil {
		return nil, e.noCache("load")
	}
	return d, nil
}

// find returns the value of a key for an operation, nil if there is none.
func (e *Entries) find(op string, d *tokencache.Doc, key string) ([]byte, error) {
	at, err := d.Get(e.section, key)
	if err != nil {
		return nil, e.foreign(op)
	}
	if at == nil {
		return nil, nil
	}
	var s stored
	if json.Unmarshal(at.Value(), &s) != nil || s.Data == nil {
		return nil, e.foreign(op)
	}
	if *s.Data == nil {
		return []byte{}, nil
	}
	return *s.Data, nil
}

func (e *Entries) with(current []byte, key string, value []byte) ([]byte, error) {
	if !utf8.ValidString(key) {
		return nil, e.cache.fail("save", errors.New("the key is not UTF-8"), "Encode the key as text.")
	}
	if value == nil {
		value = []byte{}
	}
	entry, err := json.Marshal(stored{&value})
	if err != nil {
		return nil, err
	}
	d, err := tokencache.Parse(current)
	if err != nil {
		return nil, e.noCache("save")
	}
	data, err := d.Set(e.section, key, entry)
	if err != nil {
		return nil, e.foreign("save")
	}
	return data, nil
}

// noCache is the error of an operation where what is stored is no token cache.
func (e *Entries) noCache(op string) error {
	return e.cache.fail(op, fmt.Errorf("%w: what is stored is not a token cache", ErrCorrupt), "Move the stored data away, and set the entries again.")
}

// foreign is the error of an operation that met a section which this package has not
// stored.
func (e *Entries) foreign(op string) error {
	return e.cache.fail(op, fmt.Errorf("%w: the section %s has something else in it", ErrCorrupt, quote.Text(e.section)), "Use a section that no other program uses.")
}
