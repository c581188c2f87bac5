package keyring

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// KeySource keeps the keys of encrypted files in a keyring: 32 random bytes in
// one small item for each key id. It satisfies the KeySource interface of
// package encrypted, and its KeyDeleter.
//
// The item's service is the one given to [NewKeySource]; its user is
// "tokenkeep key " and the id, and its secret the key in base64url without
// padding. A key is never overwritten: an id names one key for ever.
//
// It keeps no key in memory; every Key is one call of the keyring.
type KeySource struct {
	k       Keyring
	service string
}

// NewKeySource returns the keys that k keeps for a service, most often the name
// of the cache. It does no I/O.
func NewKeySource(k Keyring, service string) *KeySource { return &KeySource{k, service} }

// keySize is the size of every key, in bytes.
const keySize = 32

// Source returns "keyring".
func (*KeySource) Source() string { return "keyring" }

// NewKey makes a random key under an id, which must be free of spaces and
// control characters, and reads it back to prove that the keyring keeps it. If
// there is a key of that id already, it returns that one. The ref that finds
// the key again is the id.
//
// It returns ErrCorrupt, and changes nothing, if there is an item of that id
// that is no key.
func (s *KeySource) NewKey(ctx context.Context, id string) (ref string, key []byte, err error) {
	user, err := keyUser(id)
	if err != nil || strings.Contains(id, " ") {
		return "", nil, wrap("new key", s.service, user, cmp.Or(err, errBadID))
	}
	fail := func(err error) (string, []byte, error) { return "", nil, wrap("new key", s.service, user, err) }
	key, err = s.get(ctx, user)
	switch {
	case err == nil:
		return id, key, nil
	case errors.Is(err, errNoKey):
		return fail(fmt.Errorf("%w: %w", persistence.ErrCorrupt, err))
	case !errors.Is(err, persistence.ErrNotFound):
		return fail(err)
	}
	key = make([]byte, keySize)
	rand.Read(key)
	if err := s.k.Set(ctx, s.service, user, coding.EncodeToString(key)); err != nil {
		return fail(err)
	}
	back, err := s.get(ctx, user)
	switch {
	case err == nil && subtle.ConstantTimeCompare(back, key) == 1:
		return id, key, nil
	case err == nil, errors.Is(err, errNoKey), errors.Is(err, persistence.ErrNotFound):
		return fail(unavailable("the keyring did not keep a key that it was given", "Use another keyring program, or a passphrase."))
	}
	return fail(err)
}

// Key returns the key of a ref: the id, and whatever follows it after a space.
// It fails with ErrKeyMissing if the keyring is open and has no such key, or
// has something under its name that is no key. A locked or unavailable keyring
// is never taken for that.
func (s *KeySource) Key(ctx context.Context, ref string) ([]byte, error) {
	user, err := keyUser(ref)
	if err != nil {
		return nil, wrap("key", s.service, user, err)
	}
	key, err := s.get(ctx, user)
	switch {
	case errors.Is(err, errNoKey):
		err = fmt.Errorf("%w: %w", persistence.ErrKeyMissing, err)
	case errors.Is(err, persistence.ErrNotFound):
		// Not also ErrNotFound: that something is stored is why the key is wanted.
		err = &advice{persistence.ErrKeyMissing, "If the keyring was reset or is another user's, put the old one back; else sign in again."}
	}
	return key, wrap("key", s.service, user, err)
}

// DeleteKey deletes the key of a ref. Deleting one that is not there succeeds.
func (s *KeySource) DeleteKey(ctx context.Context, ref string) error {
	user, err := keyUser(ref)
	if err == nil {
		err = s.k.Delete(ctx, s.service, user)
	}
	if errors.Is(err, persistence.ErrNotFound) {
		err = nil
	}
	return wrap("delete key", s.service, user, err)
}

var (
	errNoKey = errors.New("the keyring item is not a key")
	errBadID = errors.New("the key id is empty or has a space")
)

func (s *KeySource) get(ctx context.Context, user string) ([]byte, error) {
	text, err := s.k.Get(ctx, s.service, user)
	if err != nil {
		return nil, err
	}
	// What does not decode is not shown: it may be somebody's secret.
	key, err := coding.DecodeString(text)
	if err != nil || len(key) != keySize {
		return nil, errNoKey
	}
	return key, nil
}

func keyUser(ref string) (user string, err error) {
	id, _, _ := strings.Cut(ref, " ")
	user = "tokenkeep key " + id
	if id == "" {
		return user, errBadID
	}
	return user, checkName("service", user)
}
