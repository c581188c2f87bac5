package tokensource

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// config returns the server's client, changed.
func (w *world) config(change func(*oauth2.Config)) *oauth2.Config {
	conf := w.server.Config()
	change(conf)
	return conf
}

// expired stores a new sign-in of a Source whose access token is expired.
func (w *world) expired(s *Source) *oauth2.Token {
	w.t.Helper()
	token := w.newSignIn()
	token.Expiry = w.clock.now().Add(-time.Minute)
	require.NoError(w.t, s.Save(context.Background(), token))
	return token
}

func otherClient(conf *oauth2.Config) { conf.ClientID = "another-client" }

func TestAnotherClientDoesNotRefresh(t *testing.T) {
	for name, change := range map[string]func(*oauth2.Config){
		"client":    otherClient,
		"endpoint":  func(conf *oauth2.Config) { conf.Endpoint.TokenURL += "/" },
		"no client": func(conf *oauth2.Config) { conf.ClientID = "" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{})
			ours, theirs := w.source(), w.sourceOf(w.config(change))
			token := w.expired(ours)
			before := w.stored()
			for range 2 {
				_, err := theirs.Token()
				require.ErrorIs(t, err, ErrOtherClient)
				require.ErrorIs(t, err, ErrSignInRequired)
				require.NotErrorIs(t, err, ErrTemporary)
				require.ErrorContains(t, err, `client "example-client" at "`+w.server.Config().Endpoint.TokenURL+`"`)
				require.NotContains(t, err.Error(), token.RefreshToken)
			}
			require.Zero(t, w.server.Refreshes())
			require.Equal(t, before, w.stored())

			// What needs no provider works.
			got, err := theirs.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, token.RefreshToken, got.RefreshToken)
			_, err = ours.Token()
			require.NoError(t, err)
			_, err = theirs.Token()
			require.NoError(t, err, "a good token is not refreshed")

			// A sign-in binds anew.
			w.advance(2 * time.Hour)
			w.expired(theirs)
			_, err = ours.Token()
			require.ErrorIs(t, err, ErrOtherClient)
			require.Equal(t, 1, w.server.Refreshes())
			require.NoError(t, ours.Delete(t.Context()))
			require.Nil(t, w.stored())
			_, err = ours.Token()
			require.ErrorIs(t, err, ErrSignInRequired)
			require.NotErrorIs(t, err, ErrOtherClient)
		})
	}
}

// The same where the sign-in comes while another Source waits for the lock.
func TestAnotherClientSignsInMeanwhile(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	ours, theirs := w.source(), w.sourceOf(w.config(otherClient))
	w.expired(ours)
	err := w.cache().Exclusive(t.Context(), section+" "+key, func(context.Context) error {
		locking := make(chan struct{})
		w.onStore(func(op string, call func() error) error {
			if op == "LockName" {
				close(locking)
			}
			return call()
		})
		got := begin(ours.Token)
		<-locking
		w.onStore(func(_ string, call func() error) error { return call() })
		w.expired(theirs)
		t.Cleanup(func() { require.ErrorIs(t, (<-got).err, ErrOtherClient) })
		return nil
	})
	require.NoError(t, err)
	require.Zero(t, w.server.Refreshes())
}

func TestIssuer(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	const issuer = "https://login.example"
	moved := w.config(func(conf *oauth2.Config) { conf.Endpoint.TokenURL += "?v=2" })
	for _, test := range []struct {
		name        string
		saver, user *Source
		refused     bool
	}{
		{"the same issuer, another endpoint", w.source(WithIssuer(issuer)), w.sourceOf(moved, WithIssuer(issuer)), false},
		{"another issuer, the same endpoint", w.source(WithIssuer(issuer)), w.source(WithIssuer(issuer + "/")), true},
		{"the issuer of another client", w.source(WithIssuer(issuer)), w.sourceOf(w.config(otherClient), WithIssuer(issuer)), true},
		{"no issuer yet", w.source(), w.source(WithIssuer(issuer)), false},
		{"no issuer yet, another endpoint", w.source(), w.sourceOf(moved, WithIssuer(issuer)), true},
		{"no issuer any more", w.source(WithIssuer(issuer)), w.source(), false},
		{"no issuer any more, another endpoint", w.source(WithIssuer(issuer)), w.sourceOf(moved), true},
		{"a former endpoint", w.source(), w.sourceOf(moved, WithFormerEndpoints("https://x", w.server.Config().Endpoint.TokenURL)), false},
		{"another one's former endpoint", w.source(), w.sourceOf(moved, WithFormerEndpoints("https://x")), true},
		{"a former endpoint of another client", w.source(), w.sourceOf(w.config(otherClient), WithFormerEndpoints(w.server.Config().Endpoint.TokenURL)), true},
		{"a former issuer", w.source(WithIssuer(issuer)), w.sourceOf(moved, WithIssuer("https://new.example"), WithFormerEndpoints(issuer)), false},
		{"nothing former", w.source(WithIssuer(issuer)), w.sourceOf(moved, WithIssuer("https://new.example"), WithFormerEndpoints("")), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.expired(test.saver)
			before := w.server.Refreshes()
			_, err := test.user.Token()
			if test.refused {
				require.ErrorIs(t, err, ErrOtherClient)
				require.Equal(t, before, w.server.Refreshes())
				return
			}
			require.NoError(t, err)
			require.Equal(t, before+1, w.server.Refreshes())
			// From now on it is bound to the present one.
			e, c := w.stored(), test.user.client()
			require.Equal(t, *c, client{e.text(boundClient), e.text(boundIssuer), e.text(boundEndpoint)})
		})
	}
}

// Older versions bound nothing, and neither do other programs.
func TestUnboundIsBoundAtTheFirstRefresh(t *testing.T) {
	for name, trouble := range map[string]bool{"at once": false, "after a failure": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{NoRotation: true})
			token := w.newSignIn()
			adopted, err := json.Marshal(map[string]any{section: map[string]any{key: map[string]any{"access_token": "old", "refresh_token": token.RefreshToken, "expires_on": 1}}})
			require.NoError(t, err)
			require.NoError(t, w.memory.Save(t.Context(), adopted))
			first, second := w.source(), w.sourceOf(w.config(otherClient))
			if trouble {
				w.server.Fail(1, oauthserver.Failure{Status: 503})
				_, err := second.Token()
				require.ErrorIs(t, err, ErrTemporary)
				require.NotContains(t, w.stored(), boundClient, "it may not have been its own")
			}
			_, err = first.Token()
			require.NoError(t, err)
			require.Equal(t, "example-client", w.stored().text(boundClient))
			w.advance(2 * time.Hour)
			_, err = second.Token()
			require.ErrorIs(t, err, ErrOtherClient)
			_, err = first.Token()
			require.NoError(t, err)
		})
	}
}

// embeds and wraps are Refreshers of a program's own.
type embeds struct {
	*oauth2.Config
	n int
}
type embedsValue struct{ oauth2.Config }
type wraps struct{ conf *oauth2.Config }

func (r wraps) TokenSource(ctx context.Context, t *oauth2.Token) oauth2.TokenSource {
	return r.conf.TokenSource(ctx, t)
}

type hidden struct{ wraps }

func TestRefreshersOfOnesOwn(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	conf := w.server.Config()
	for name, r := range map[string]Refresher{"embeds": embeds{conf, 1}, "embeds, pointer": &embeds{conf, 1}, "embeds a value": &embedsValue{oauth2.Config{ClientID: conf.ClientID, Endpoint: conf.Endpoint}}} {
		w.expired(w.source())
		_, err := w.sourceOf(r).Token()
		require.NoError(t, err, name)
		w.expired(w.sourceOf(w.config(otherClient)))
		_, err = w.sourceOf(r).Token()
		require.ErrorIs(t, err, ErrOtherClient, name)
	}
	for name, r := range map[string]Refresher{"wraps": wraps{conf}, "embeds one that wraps": &hidden{wraps{conf}}} {
		s := w.sourceOf(r)
		w.expired(w.source())
		_, err := s.Token()
		require.ErrorIs(t, err, ErrOtherClient, name)
		require.ErrorContains(t, err, "does not tell its client")
		w.expired(s)
		require.NotContains(t, w.stored(), boundEndpoint)
		_, err = s.Token()
		require.NoError(t, err, name)
		require.NotContains(t, w.stored(), boundEndpoint)
		_, err = New(t.Context(), w.cache(), key, r, WithIssuer("https://x"))
		var e *persistence.Error
		require.True(t, errors.As(err, &e), name)
	}
}

// A provider has no say in what its tokens are bound to.
func TestProviderBindsNothing(t *testing.T) {
	w := newWorld(t, oauthserver.Options{Extra: map[string]any{boundClient: "theirs", boundIssuer: "https://theirs", boundEndpoint: "https://theirs/token"}})
	s := w.source()
	check := func() {
		e := w.stored()
		require.Equal(t, client{"example-client", "", w.server.Config().Endpoint.TokenURL}, client{e.text(boundClient), e.text(boundIssuer), e.text(boundEndpoint)})
	}
	w.expired(s)
	check()
	_, err := s.Token()
	require.NoError(t, err)
	check()
}

// What others have stored is quoted.
func TestOtherClientIsQuoted(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.expired(w.sourceOf(w.config(func(conf *oauth2.Config) { conf.ClientID, conf.Endpoint.TokenURL = "\x1b[2J", "https://x/"+"\u202e" })))
	_, err := w.source().Token()
	require.ErrorContains(t, err, `client "\x1b[2J" at "https://x/\u202e"`)
}

// What could not be saved keeps what it is bound to.
func TestUnsavedIsBound(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	s := w.source()
	w.expired(s)
	full := errors.New("no space left")
	w.onStore(func(op string, call func() error) error {
		if op == "SaveIf" {
			return full
		}
		return call()
	})
	_, err := s.Token()
	require.NoError(t, err)
	w.onStore(func(_ string, call func() error) error { return call() })
	_, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, "example-client", w.stored().text(boundClient))
	u, err := url.Parse(w.stored().text(boundEndpoint))
	require.NoError(t, err)
	require.Equal(t, "/token", u.Path)
}
