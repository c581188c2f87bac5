package tokensource

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
)

func TestGrant(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	var asked atomic.Int32
	var refuse atomic.Pointer[error]
	grant := Grant(func(context.Context) (*oauth2.Token, error) {
		n := asked.Add(1)
		if err := refuse.Load(); err != nil {
			return nil, *err
		}
		return &oauth2.Token{AccessToken: fmt.Sprint("token ", n), RefreshToken: "not kept", Expiry: w.clock.now().Add(time.Hour)}, nil
	})
	var all sync.WaitGroup
	for range 3 {
		s := w.sourceOf(grant)
		for range 4 {
			all.Go(func() {
				token, err := s.Token()
				if err != nil || token.AccessToken != "token 1" {
					t.Error(token, err)
				}
			})
		}
	}
	all.Wait()
	require.EqualValues(t, 1, asked.Load())
	require.Empty(t, w.stored().text(refreshToken))

	s := w.sourceOf(grant)
	w.clock.advance(time.Hour)
	token, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, "token 2", token.AccessToken)
	s.Invalidate(token)
	token, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, "token 3", token.AccessToken)
	require.NoError(t, s.Delete(t.Context()))
	token, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, "token 4", token.AccessToken, "nobody has to sign in")

	t.Run("refused", func(t *testing.T) {
		w.clock.advance(time.Hour)
		for _, code := range []string{"invalid_grant", "invalid_client", "echo-of-the-secret"} {
			err := error(&oauth2.RetrieveError{Response: &http.Response{StatusCode: 400, Header: http.Header{}}, ErrorCode: code, ErrorDescription: "the secret xyzzy is wrong", Body: []byte("xyzzy")})
			refuse.Store(&err)
			_, err = s.Token()
			require.Error(t, err)
			require.NotErrorIs(t, err, ErrSignInRequired)
			require.Equal(t, code == "echo-of-the-secret", errors.Is(err, ErrTemporary), "%v", err)
			require.NotContains(t, err.Error(), "xyzzy")
			require.NotContains(t, err.Error(), "echo")
			require.NotNil(t, w.stored(), "what is stored is left alone")
		}
		refuse.Store(nil)
		_, err := s.Token()
		require.NoError(t, err)
	})
	t.Run("the storage fails", func(t *testing.T) {
		w.clock.advance(time.Hour)
		broken := errors.New("the disk is full")
		w.onStore(func(op string, call func() error) error {
			if op == "SaveIf" {
				return broken
			}
			return call()
		})
		first, err := s.Token()
		require.NoError(t, err)
		again, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, first.AccessToken, again.AccessToken)
		w.onStore(func(_ string, call func() error) error { return call() })
		w.clock.advance(2 * time.Minute)
		again, err = s.Token()
		require.NoError(t, err)
		require.Equal(t, first.AccessToken, again.AccessToken)
		require.Equal(t, first.AccessToken, w.stored().text(accessToken), "it was stored later")
	})
}

func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

// script is a Refresher that gives one answer after another.
type script struct {
	oauth2.Config
	mu   sync.Mutex
	next []*oauth2.Token
	sent []string
}

func (a *script) TokenSource(_ context.Context, t *oauth2.Token) oauth2.TokenSource {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent = append(a.sent, t.RefreshToken)
	answer := a.next[0]
	a.next = a.next[1:]
	return oauth2.StaticTokenSource(answer)
}

func TestIDToken(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.clock.freeze()
	at := func(n int, expires time.Duration) string {
		now := w.clock.now()
		return jwt(fmt.Sprintf(`{"n":%d,"iat":%d,"exp":%d}`, n, now.Unix(), now.Add(expires).Unix()))
	}
	answer := func(refresh, id string) *oauth2.Token {
		extra := map[string]any{"access_token": "opaque"}
		if id != "" {
			extra["id_token"] = id
		}
		return (&oauth2.Token{AccessToken: "opaque", RefreshToken: refresh, Expiry: w.clock.now().Add(24 * time.Hour)}).WithExtra(extra)
	}
	provider := &script{}
	s := w.sourceOf(provider, WithIDToken())
	first := at(1, time.Hour)
	require.NoError(t, s.Save(t.Context(), answer("r1", first)))
	got, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, first, got.AccessToken)
	require.Equal(t, w.clock.now().Add(time.Hour).Unix(), got.Expiry.Unix())
	require.Equal(t, "Bearer", got.Type())

	w.clock.advance(time.Hour) // the access token is good for longer
	second := at(2, time.Hour)
	provider.next = []*oauth2.Token{answer("r2", second)}
	got, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, second, got.AccessToken)
	got, err = w.sourceOf(provider, WithIDToken()).Token()
	require.NoError(t, err, "another process finds it")
	require.Equal(t, second, got.AccessToken)

	s.Invalidate(got)
	third := at(3, time.Hour)
	provider.next = []*oauth2.Token{answer("r3", third)}
	got, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, third, got.AccessToken)

	w.clock.advance(time.Hour)
	provider.next = []*oauth2.Token{answer("r4", ""), answer("r5", at(4, time.Hour))}
	_, err = s.Token()
	require.ErrorContains(t, err, "no ID token")
	require.NotErrorIs(t, err, ErrSignInRequired)
	require.Equal(t, "r4", w.stored().text(refreshToken), "what came is kept")
	_, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, []string{"r1", "r2", "r3", "r4"}, provider.sent)

	for _, bad := range []string{"", "a", "a.b.c", jwt(`{}`), jwt(`{"exp":"soon"}`), jwt(`[]`)} {
		require.NoError(t, s.Save(t.Context(), answer("", bad)))
		_, err = s.Token()
		require.ErrorIs(t, err, ErrSignInRequired, bad)
	}
}

// The fields of a response are kept, also those that say nothing.
func TestEmptyFields(t *testing.T) {
	for name, raw := range map[string]any{
		"JSON": map[string]any{"access_token": "a", "scope": "", "note": ""},
		"form": url.Values{"access_token": {"a"}, "scope": {""}, "note": {""}},
	} {
		e := newEntry((&oauth2.Token{AccessToken: "a"}).WithExtra(raw), time.Now())
		require.Equal(t, `""`, string(e["scope"]), name)
		require.Equal(t, `""`, string(e["note"]), name)
		require.NotContains(t, e, "id_token", name)
		require.NotContains(t, e, "refresh_token", name)
	}
}
