package sealed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/forward"
)

// Key is a key with the id that it goes by. Make one with [NewKey].
//
// However it is formatted, by package fmt, log/slog or an encoder, it shows its id
// alone, also as a part of another value.
type Key struct {
	ID     string        // readable by all
	secret func() []byte // a function, because no verb of package fmt looks behind one
}

// NewKey returns the key of that id: 1 to 64 of a-z, 0-9, ".", "_" and "-",
// beginning with a letter or digit. secret is 32 random bytes, of which NewKey
// keeps a copy. [New] and [Keys.Replace] check both.
func NewKey(id string, secret []byte) Key {
	secret = bytes.Clone(secret)
	return Key{id, func() []byte { return secret }}
}

func (k *Key) bytes() []byte {
	if k.secret == nil {
		return nil
	}
	return k.secret()
}

// Keys are the keys of a program: the current one, which seals, and older ones,
// which open what they sealed. It is safe for concurrent use.
type Keys struct{ ring atomic.Pointer[ring] }

type ring struct {
	current *Key
	all     map[string]*Key // by id
}

// New returns Keys.
func New(current Key, older ...Key) (*Keys, error) {
	k := new(Keys)
	if err := k.Replace(current, older...); err != nil {
		return nil, err
	}
	return k, nil
}

// Replace makes these the keys, for all accounts and from the next call on. If
// it fails, the keys are what they were.
func (k *Keys) Replace(current Key, older ...Key) error {
	r := &ring{all: map[string]*Key{}}
	for _, key := range append([]Key{current}, older...) {
		var err error
		switch {
		case !validID(key.ID):
			err = errors.New("a key has an id of the wrong form")
		case len(key.bytes()) != keySize:
			err = fmt.Errorf("key %q has %d bytes", key.ID, len(key.bytes()))
		case r.all[key.ID] != nil:
			err = fmt.Errorf("two keys have the id %q", key.ID)
		}
		if err != nil {
			return &persistence.Error{Op: "open", Backend: "sealed", Err: err,
				Remedy: fmt.Sprintf("A key needs %d random bytes and an id of its own, of a-z, 0-9, '.', '_' and '-'.", keySize)}
		}
		r.all[key.ID] = &key
	}
	r.current = r.all[current.ID]
	k.ring.Store(r)
	return nil
}

// Account returns store with encryption above it. account is bound into what is
// saved, and must be the same whenever it is loaded: the partition key, as a
// rule. It does no I/O and costs next to nothing.
//
// Revisions and errors are the store's, and so are the locks, the leases and the SetAside
// if the store has them. Revision, DeleteIf and Delete need no key.
func (k *Keys) Account(account string, store persistence.Versioned) persistence.Versioned {
	return forward.Abilities(&sealed{store, k, account}, store, nil)
}

// sealed is one account of a store, encrypted.
type sealed struct {
	persistence.Versioned
	keys    *Keys
	account string
}

// Describe implements [persistence.Describer].
func (s *sealed) Describe() persistence.Description {
	d := persistence.Describe(s.Versioned)
	d.Encrypted, d.KeySource = true, "program"
	return d
}

// Load implements [persistence.Persistence].
func (s *sealed) Load(ctx context.Context) ([]byte, error) {
	stored, err := s.Versioned.Load(ctx)
	if err != nil {
		return nil, err
	}
	return s.open(stored)
}

// LoadRevision implements [persistence.Versioned].
func (s *sealed) LoadRevision(ctx context.Context) ([]byte, string, error) {
	stored, rev, err := s.Versioned.LoadRevision(ctx)
	if err != nil {
		return nil, rev, err
	}
	data, err := s.open(stored)
	return data, rev, err
}

// Save implements [persistence.Persistence].
func (s *sealed) Save(ctx context.Context, data []byte) error {
	stored, err := s.seal(data)
	if err != nil {
		return err
	}
	return s.Versioned.Save(ctx, stored)
}

// SaveIf implements [persistence.Versioned].
func (s *sealed) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	stored, err := s.seal(data)
	if err != nil {
		return "", err
	}
	return s.Versioned.SaveIf(ctx, stored, rev)
}

func (s *sealed) seal(data []byte) ([]byte, error) {
	stored, err := seal(s.keys.ring.Load().current, s.account, data)
	if err != nil {
		return nil, s.fail("save", err, "")
	}
	return stored, nil
}

func (s *sealed) open(stored []byte) ([]byte, error) {
	all := s.keys.ring.Load().all
	data, err := open(stored, s.account, func(id string) *Key { return all[id] })
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, persistence.ErrCorrupt):
		return nil, s.fail("load", err, "Sign the user out, which removes it; then the user can sign in again.")
	case errors.Is(err, persistence.ErrUnsupportedVersion):
		return nil, s.fail("load", err, "Update this program.")
	default:
		return nil, s.fail("load", err, "Give the program that key, as an older one. If it is lost, sign the user out, which removes the data.")
	}
}

func (s *sealed) fail(op string, err error, remedy string) error {
	d := persistence.Describe(s.Versioned)
	return &persistence.Error{Op: op, Backend: d.Backend, Location: d.Location, Err: err, Remedy: remedy}
}
