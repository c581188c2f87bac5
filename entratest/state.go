package entratest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// session is the sign-in that a refresh token stands for.
type session struct {
	Family string    `json:"family"` // all tokens that descend from one sign-in
	User   string    `json:"user"`   // the username
	Client string    `json:"client"`
	Tenant string    `json:"tenant"` // as in the request that began it
	Spent  bool      `json:"spent,omitempty"`
	Until  time.Time `json:"until"`
}

// tokenStore has the refresh tokens by their hash, in memory or in a file that
// several servers may share.
type tokenStore struct {
	path string
	mu   sync.Mutex
	m    map[string]session
}

func newTokenStore(path string) *tokenStore {
	return &tokenStore{path: path, m: map[string]session{}}
}

// update runs edit on all sessions and stores the result, also when edit fails.
func (t *tokenStore) update(edit func(m map[string]session) error) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" {
		return edit(t.m)
	}
	if err := securefile.MkdirAll(filepath.Dir(t.path)); err != nil {
		return fmt.Errorf("entratest: %w", err)
	}
	lock := flock.New(t.path+".lock", flock.SetPermissions(0o600))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("entratest: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	m := map[string]session{}
	b, _, err := securefile.Read(context.Background(), t.path, 64<<20)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("entratest: the state in %s: %w", t.path, err)
	}
	edited := edit(m)
	if b, err = json.MarshalIndent(m, "", "\t"); err == nil {
		_, err = securefile.Replace(context.Background(), t.path, b)
	}
	return errors.Join(edited, err)
}

func hash(token string) string { return base64.RawURLEncoding.EncodeToString(digest(token)) }

// open begins or continues a session with a new refresh token.
func (s *Server) open(m map[string]session, n session) (token string) {
	now := s.o.Now()
	for h, old := range m {
		if old.Until.Before(now) {
			delete(m, h)
		}
	}
	token = "1." + random(48)
	n.Spent, n.Until = false, now.Add(s.o.RefreshLifetime)
	m[hash(token)] = n
	return token
}

// exchange spends a refresh token for the next one of its session.
func (s *Server) exchange(token, client string) (n session, next string, err error) {
	err = s.tokens.update(func(m map[string]session) error {
		h := hash(token)
		var ok bool
		if n, ok = m[h]; !ok {
			return refuse("invalid_grant", 9002313, "The refresh token is not known, or it was revoked.")
		}
		if n.Until.Before(s.o.Now()) {
			return refuse("invalid_grant", 700082, "The refresh token has expired.")
		}
		if n.Client != client {
			return refuse("invalid_grant", 70000, "The refresh token was issued to another client.")
		}
		if n.Spent {
			s.mu.Lock()
			s.reuses++
			s.mu.Unlock()
			if !s.o.AllowReuse {
				for h, other := range m {
					if other.Family == n.Family {
						delete(m, h)
					}
				}
				return refuse("invalid_grant", 70000, "The refresh token was used before. All tokens of this sign-in have been revoked.")
			}
		}
		spent := n
		spent.Spent = true
		m[h] = spent
		next = s.open(m, n)
		return nil
	})
	return n, next, err
}

// Revoke revokes every refresh token of the user named username, as an
// administrator does: the user's next refresh fails, and MSAL asks for a new
// sign-in. Access tokens stay valid until they expire. It fails only if
// Options.StateFile cannot be read or written.
func (s *Server) Revoke(username string) error {
	return s.revoke(func(n session) bool { return n.User == username })
}

func (s *Server) revoke(which func(session) bool) error {
	return s.tokens.update(func(m map[string]session) error {
		for h, n := range m {
			if which(n) {
				delete(m, h)
			}
		}
		return nil
	})
}
