package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/tokenkeep/tokenkeep/persistence"
)

const sessionLifetime = 12 * time.Hour

// newSessions keeps web sessions in the store that keeps the accounts too. In the
// cookie there is a random name, and the store has only the name's hash.
func newSessions(https bool, at func(key string) persistence.Versioned) *scs.SessionManager {
	m := scs.New()
	m.Store = sessionStore{at}
	m.HashTokenInStore = true
	m.Lifetime = sessionLifetime
	m.Cookie.Name = "signin"
	if https {
		m.Cookie.Name = "__Host-signin"
	}
	m.Cookie.Secure = https
	m.Cookie.HttpOnly = true
	m.Cookie.SameSite = http.SameSiteLaxMode // Strict would hide it when the authority sends the browser back
	return m
}

// sessionStore is a scs.CtxStore. It saves sessions with their expiry before
// them, since a store's time to live begins anew with each use.
type sessionStore struct {
	at func(key string) persistence.Versioned
}

func (s sessionStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	b, err := s.at(token).Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) || errors.Is(err, persistence.ErrCorrupt) {
		return nil, false, nil // a session that is damaged is over; the user signs in again
	}
	// Not so where its key is missing: that may come.
	if err != nil {
		return nil, false, err
	}
	if len(b) < 8 || time.Now().Unix() >= int64(binary.BigEndian.Uint64(b)) {
		return nil, false, nil
	}
	return b[8:], true, nil
}

func (s sessionStore) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	return s.at(token).Save(ctx, append(binary.BigEndian.AppendUint64(nil, uint64(expiry.Unix())), b...))
}

func (s sessionStore) DeleteCtx(ctx context.Context, token string) error {
	return s.at(token).Delete(ctx)
}

func (s sessionStore) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

func (s sessionStore) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

func (s sessionStore) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }
