// Package session keeps a user's token cache in the web session, whatever keeps
// the session: a pair of functions is enough. Package scssession has them for
// github.com/alexedwards/scs.
//
//	cache, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
//		return session.New(
//			func(ctx context.Context) ([]byte, error) { return mySession(ctx).Get(account), nil },
//			func(ctx context.Context, data []byte) error { mySession(ctx).Set(account, data); return nil },
//			nil), nil
//	})
//
// The functions get the context that was given to MSAL, so give MSAL the
// request's.
//
// # The size of a cookie
//
// This does not work if the session itself is in a cookie, and not only its name. A
// browser takes 4,096 bytes for a cookie, name and attributes included (RFC 6265,
// section 6.1), and drops a larger one silently: the user is asked to sign in again and
// again. One account with the tokens of one API takes 6 to 12 kB.
// Encryption and base64 add a third, at times twice. So keep such sessions on the
// server; or set Options.MaxSize to [CookieSize], with which a save that no
// browser would take fails with persistence.ErrTooLarge.
//
// # What a session cannot do
//
// Most session managers read the session when a request begins and write it, as a
// whole, when the response does. So of two requests at once the one that ends
// last wins, and a refresh token that the other one got may be lost; what is
// acquired after the response has begun is not saved; and Save returns long before
// anything is durable. A sign-out removes what this session has, and nothing from
// other sessions of the same user. If any of this matters, use package redisstore
// or sqlstore, and keep only the account's id in the session.
package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// CookieSize is the size of the largest data, in bytes, for which a session in a cookie
// has room if it has no other data: the rest of 4,096 bytes after name and attributes,
// with base64 applied twice, as gorilla/securecookie does.
const CookieSize = 2048

// Options are the settings of a Session. The zero value is right for most.
type Options struct {
	// MaxSize is how many bytes of data the session takes, at most. 0 means any
	// number.
	MaxSize int
}

// Session is a token cache in a web session. It implements
// [persistence.Versioned]. Its revision is a digest of the data. It is safe for
// concurrent use if the functions are; two Sessions on the same data, and two
// requests, do not know of each other.
type Session struct {
	get     func(ctx context.Context) ([]byte, error)
	put     func(ctx context.Context, data []byte) error
	maxSize int

	mu sync.Mutex
}

var _ persistence.Versioned = (*Session)(nil)

// New returns a Session. get returns what put has stored, or nil if there is nothing;
// put with nil removes it. Empty data that is not nil is data. A Session copies what
// get returns, and put may keep what it is given. A Session knows only what the
// functions tell it, so making one for each request costs next to nothing. A nil opts
// means the defaults.
func New(get func(ctx context.Context) ([]byte, error), put func(ctx context.Context, data []byte) error, opts *Options) *Session {
	s := &Session{get: get, put: put}
	if opts != nil {
		s.maxSize = opts.MaxSize
	}
	return s
}

// Describe implements [persistence.Describer].
func (s *Session) Describe() persistence.Description {
	return persistence.Description{Backend: "session"}
}

// Load implements [persistence.Persistence].
func (s *Session) Load(ctx context.Context) ([]byte, error) {
	data, _, err := s.LoadRevision(ctx)
	return data, err
}

// Save implements [persistence.Persistence].
func (s *Session) Save(ctx context.Context, data []byte) error {
	_, err := s.write(ctx, "save", append([]byte{}, data...), nil)
	return err
}

// Delete implements [persistence.Persistence].
func (s *Session) Delete(ctx context.Context) error {
	_, err := s.write(ctx, "delete", nil, nil)
	return err
}

// Revision implements [persistence.Versioned].
func (s *Session) Revision(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := s.read(ctx, "revision")
	return revision(data), err
}

// LoadRevision implements [persistence.Versioned].
func (s *Session) LoadRevision(ctx context.Context) ([]byte, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := s.read(ctx, "load")
	switch {
	case err != nil:
		return nil, "", err
	case data == nil:
		return nil, "", s.fail("load", persistence.ErrNotFound, "")
	}
	return data, revision(data), nil
}

// SaveIf implements [persistence.Versioned].
func (s *Session) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	return s.write(ctx, "save", append([]byte{}, data...), &rev)
}

// DeleteIf implements [persistence.Versioned].
func (s *Session) DeleteIf(ctx context.Context, rev string) error {
	_, err := s.write(ctx, "delete", nil, &rev)
	return err
}

func (s *Session) read(ctx context.Context, op string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.fail(op, err, "")
	}
	data, err := s.get(ctx)
	if err != nil {
		return nil, s.fail(op, err, "")
	}
	return bytes.Clone(data), nil
}

// write puts data if the revision is want, or any if want is nil. nil data removes.
func (s *Session) write(ctx context.Context, op string, data []byte, want *string) (string, error) {
	if s.maxSize > 0 && len(data) > s.maxSize {
		return "", s.fail(op, fmt.Errorf("%w: %d bytes, and this session takes %d", persistence.ErrTooLarge, len(data), s.maxSize),
			"Keep the sessions on the server, or the tokens in Redis or a database; a cookie holds 4,096 bytes, encoded, with its name and attributes.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := s.read(ctx, op)
	switch {
	case err != nil:
		return "", err
	case want != nil && *want != revision(now):
		return "", s.fail(op, persistence.ErrConflict, "")
	}
	if err := s.put(ctx, data); err != nil {
		return "", s.fail(op, err, "")
	}
	return revision(data), nil
}

// fail keeps an error that says more than this package knows.
func (s *Session) fail(op string, err error, remedy string) error {
	var target *persistence.Error
	if errors.As(err, &target) {
		return err
	}
	return &persistence.Error{Op: op, Backend: "session", Err: err, Remedy: remedy}
}

func revision(data []byte) string {
	if data == nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
