package keyring

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Keys keeps the keys of encrypted files in a keyring: 32 random bytes in one
// small item for each key id. It implements the KeySource and KeyDeleter
// interfaces of package encrypted, and is safe for concurrent use.
//
// The item's service is the one given to [NewKeys]; its user is "tokenkeep key "
// and the id, and its secret is the key in base64url without padding. A key is
// never overwritten: an id names the same key for ever.
//
// It keeps no key in memory; every Key is one call of the keyring.
//
// A keyring that has a method KeySource() string which returns "kernel", like that of
// [Kernel], counts as the Linux kernel's: its keys end with the boot, and another rule
// says when a key is gone. Through a wrapper of [Kernel] without that method, no key
// counts as gone after a restart: nothing is set aside, and the user signs out and in again.
type Keys struct {
	keyring Keyring
	service string
}

// NewKeys returns the keys that k keeps under a service, most often the name of
// the cache. It does no I/O.
func NewKeys(k Keyring, service string) *Keys { return &Keys{k, service} }

// keySize is the size of every key, in bytes.
const keySize = 32

// Source returns "kernel" for the Linux kernel's keyring, else "keyring".
func (k *Keys) Source() string {
	if s, ok := k.keyring.(interface{ KeySource() string }); ok && s.KeySource() == layout.Kernel {
		return layout.Kernel
	}
	return layout.Keyring
}

// NewKey makes a random key under an id and reads it back, to prove that the
// keyring keeps it. If there is already a key of that id, it returns that one.
// The id must not be empty or contain spaces or control characters. ref, which
// finds the key again, is the id, and on Linux a word for the session bus if that is
// not the one of the user's login.
//
// If the item of that id is not a key, NewKey returns ErrCorrupt and changes
// nothing. If the keyring does not return what it was given, the error is
// ErrUnavailable.
func (k *Keys) NewKey(ctx context.Context, id string) (ref string, key []byte, err error) {
	user, err := keyUser(id)
	if err != nil || strings.Contains(id, " ") {
		return "", nil, wrap("new key", k.service, user, cmp.Or(err, errBadID))
	}
	fail := func(err error) (string, []byte, error) { return "", nil, wrap("new key", k.service, user, err) }
	notStored := func(err error) (string, []byte, error) {
		return fail(remedy.With(persistence.Remedy(err), ledger.NotStored(persistence.Cause(err))))
	}
	key, err = k.get(ctx, user)
	switch {
	case err == nil:
		place, err := k.place(ctx)
		if err != nil {
			return fail(err)
		}
		return refAt(id, place), key, nil
	case errors.Is(err, errNoKey):
		return fail(fmt.Errorf("%w: %w", persistence.ErrCorrupt, err))
	case !errors.Is(err, persistence.ErrNotFound):
		return notStored(err)
	}
	place := k.placeOf(absentIn(err))
	key = make([]byte, keySize)
	rand.Read(key)
	err = k.keyring.Set(ctx, k.service, user, coding.EncodeToString(key))
	switch {
	case errors.Is(err, persistence.ErrTooLarge):
		return notStored(err)
	case err != nil:
		return fail(err)
	}
	back, err := k.get(ctx, user)
	switch {
	case err == nil && subtle.ConstantTimeCompare(back, key) == 1:
		return refAt(id, place), key, nil
	case err == nil, errors.Is(err, errNoKey), errors.Is(err, persistence.ErrNotFound):
		return fail(newTrouble(Failed, "the keyring did not keep a key that it was given", "Use another keyring program, or a passphrase."))
	}
	return fail(err)
}

// Key returns the key of a ref. It returns ErrKeyMissing only if the keyring is open
// and has no such key, or the item under its name is not a key; a locked or
// unavailable keyring has its own errors. Where the key may be in another keyring of
// the user, the error is ErrUnavailable: on macOS if this session does not search the
// login keychain, on Linux if the key was stored over another session bus, or in
// KeePassXC, which shows only the databases that are open. Where a part of the keyring
// is locked, it is ErrKeyringLocked. All this holds for a [Keyring] that wraps [System]
// or [Kernel] too, as long as its Get returns their errors or wraps them.
func (k *Keys) Key(ctx context.Context, ref string) ([]byte, error) {
	user, err := keyUser(ref)
	if err != nil {
		return nil, wrap("key", k.service, user, err)
	}
	key, err := k.get(ctx, user)
	if errors.Is(err, persistence.ErrNotFound) {
		switch again, unsure := k.seesAll(ctx, ref, absentIn(err)); {
		case unsure != nil:
			return nil, wrap("key", k.service, user, unsure)
		case again:
			key, err = k.get(ctx, user)
		}
	}
	switch {
	case errors.Is(err, errNoKey):
		err = fmt.Errorf("%w: %w", persistence.ErrKeyMissing, err)
	case errors.Is(err, persistence.ErrNotFound):
		// It is not also ErrNotFound: the file that needs the key is stored.
		err = remedy.With("If the keyring was reset or belongs to another user, restore the old one. Otherwise sign in again.", persistence.ErrKeyMissing)
	}
	return key, wrap("key", k.service, user, err)
}

// located is a keyring of which there may be several, or which may have several parts.
type located interface {
	// place returns what tells this keyring from others of the user, or "" for the one
	// of the user's login.
	place() string
	// seesAll returns an error unless an item that is not found is in no part of the
	// user's keyring, and whether to ask for it again: a part may have been unlocked.
	// samePlace reports whether the item was stored here.
	seesAll(ctx context.Context, samePlace bool) (again bool, err error)
}

// absent is the ErrNotFound of a system. It carries the keyring that does not have the
// item, so that a [Keyring] that wraps it hides nothing as long as it passes its errors
// on.
type absent struct {
	in  Limited // the platform's own
	err error
}

func (a *absent) Error() string { return a.err.Error() }
func (a *absent) Unwrap() error { return a.err }

// absentIn returns the platform's keyring that has answered with err that it does not
// have the item, or nil.
func absentIn(err error) Keyring {
	var a *absent
	if !errors.As(err, &a) {
		return nil
	}
	return a.in
}

// seesAll is that of a located keyring, for the key of a ref that the platform's keyring
// at does not have. at is nil for a keyring of another package.
func (k *Keys) seesAll(ctx context.Context, ref string, at Keyring) (again bool, err error) {
	if l := k.partOf(at); l != nil {
		return l.seesAll(ctx, samePlace(ref, l.place()))
	}
	return false, nil
}

// place returns the place of the keyring. A keyring of another package is asked for an
// item that nobody makes: it may wrap one of ours.
func (k *Keys) place(ctx context.Context) (string, error) {
	if s, ok := k.keyring.(interface{ inside() Limited }); ok {
		return k.placeOf(s.inside()), nil
	}
	_, err := k.keyring.Get(ctx, k.service, "tokenkeep asks which keyring this is")
	if err != nil && !errors.Is(err, persistence.ErrNotFound) {
		return "", err
	}
	return k.placeOf(absentIn(err)), nil
}

func (k *Keys) placeOf(at Keyring) string {
	if l := k.partOf(at); l != nil {
		return l.place()
	}
	return ""
}

// partOf returns at if there may be several of it. For keys of the word "kernel" the
// file's header says all that there is to know.
func (k *Keys) partOf(at Keyring) located {
	l, ok := at.(located)
	if !ok || k.Source() == layout.Kernel {
		return nil
	}
	return l
}

// placeParam is the parameter of a ref that says in which keyring a key was stored.
const placeParam = " bus="

// refAt returns the ref of a key that was stored under id at that place. FORMAT.md of
// package encrypted says what is in it.
func refAt(id, place string) string {
	if place == "" {
		return id
	}
	mac := hmac.New(sha256.New, []byte(id))
	mac.Write([]byte("tokenkeep-encrypted/1\x00bus\x00" + place))
	return id + placeParam + coding.EncodeToString(mac.Sum(nil)[:16])
}

// samePlace reports whether a key of that ref was stored at that place.
func samePlace(ref, place string) bool {
	id, _, _ := strings.Cut(ref, " ")
	there := id
	if _, stored, found := strings.Cut(ref, placeParam); found {
		stored, _, _ = strings.Cut(stored, " ")
		there += placeParam + stored
	}
	return refAt(id, place) == there
}

// DeleteKey deletes the key of a ref. It succeeds if there is no such key.
func (k *Keys) DeleteKey(ctx context.Context, ref string) error {
	user, err := keyUser(ref)
	if err == nil {
		err = k.keyring.Delete(ctx, k.service, user)
	}
	if errors.Is(err, persistence.ErrNotFound) {
		err = nil
	}
	return wrap("delete key", k.service, user, err)
}

var (
	errNoKey = errors.New("the keyring item is not a key")
	errBadID = errors.New("the key id is empty or has a space")
)

func (k *Keys) get(ctx context.Context, user string) ([]byte, error) {
	text, err := k.keyring.Get(ctx, k.service, user)
	if err != nil {
		return nil, err
	}
	// The error does not show what it could not decode: it may be a secret.
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
	return user, layout.CheckItem("service", user)
}
