package tokensource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/signedout"
	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestNobodySignedIn(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	s := w.source()
	_, err := s.Token()
	require.ErrorIs(t, err, ErrSignInRequired)
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NoError(t, s.Delete(t.Context()))
	require.Zero(t, w.server.Refreshes())
	require.Nil(t, w.stored())
}

func TestSaveLoadDelete(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	s, other := w.source(), w.source()
	token := w.newSignIn()
	require.NoError(t, s.Save(t.Context(), token))
	for _, s := range []*Source{s, other} { // from memory, and from the store
		got, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, token.AccessToken, got.AccessToken)
		require.Equal(t, "Bearer", got.Type())
		require.WithinDuration(t, token.Expiry, got.Expiry, time.Second)
		require.Empty(t, got.RefreshToken)
		require.Nil(t, got.Extra("refresh_token"))
		got, err = s.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, token.RefreshToken, got.RefreshToken)
		require.Equal(t, token.RefreshToken, got.Extra("refresh_token"))
	}
	require.Zero(t, w.server.Refreshes())

	require.NoError(t, s.Delete(t.Context()))
	_, err := s.Token()
	require.ErrorIs(t, err, ErrSignInRequired)
	require.Nil(t, w.stored())
	_, err = other.Token()
	require.NoError(t, err, "it has a good token in hand, as documented")
	w.advance(2 * time.Hour)
	_, err = other.Token()
	require.ErrorIs(t, err, ErrSignInRequired)
}

func TestSeveralKeys(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	c := w.cache()
	tokens := map[string]string{}
	for _, k := range []string{"alice", "Alice", "bob", "ö \" {"} {
		s, err := New(t.Context(), c, k, w.server.Config())
		require.NoError(t, err)
		token, err := w.server.SignIn(k)
		require.NoError(t, err)
		require.NoError(t, s.Save(t.Context(), token))
		tokens[k] = token.AccessToken
	}
	for k, want := range tokens {
		s, err := New(t.Context(), w.cache(), k, w.server.Config())
		require.NoError(t, err)
		got, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, want, got.AccessToken)
	}
	s, err := New(t.Context(), c, "alice", w.server.Config())
	require.NoError(t, err)
	require.NoError(t, s.Delete(t.Context()))
	s, err = New(t.Context(), c, "Alice", w.server.Config())
	require.NoError(t, err)
	_, err = s.Token()
	require.NoError(t, err)
}

func TestInvalidate(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	a, b := w.source(), w.source()
	require.NoError(t, a.Save(t.Context(), w.newSignIn()))
	first, err := a.Token()
	require.NoError(t, err)
	_, err = b.Token()
	require.NoError(t, err)

	a.Invalidate(nil)
	a.Invalidate(&oauth2.Token{AccessToken: "another one"})
	same, err := a.Token()
	require.NoError(t, err)
	require.Equal(t, first.AccessToken, same.AccessToken)

	a.Invalidate(first)
	second, err := a.Token()
	require.NoError(t, err)
	require.NotEqual(t, first.AccessToken, second.AccessToken)
	require.Equal(t, 1, w.server.Refreshes())
	a.Invalidate(first) // by a slower goroutine
	same, err = a.Token()
	require.NoError(t, err)
	require.Equal(t, second.AccessToken, same.AccessToken)

	// The other process' API refuses it too; the token that is stored is another.
	b.Invalidate(first)
	same, err = b.Token()
	require.NoError(t, err)
	require.Equal(t, second.AccessToken, same.AccessToken)
	require.Equal(t, 1, w.server.Refreshes())
}

func TestEarlyExpiry(t *testing.T) {
	for _, test := range []struct {
		lifetime, early time.Duration
		good, due       time.Duration // after the sign-in
	}{
		{time.Hour, DefaultEarlyExpiry, time.Hour - 15*time.Second, time.Hour - 9*time.Second},
		{time.Hour, 5 * time.Minute, 54 * time.Minute, 56 * time.Minute},
		{time.Hour, 0, time.Hour - 5*time.Second, time.Hour + time.Second},
		{time.Hour, 3 * time.Hour, 29 * time.Minute, 31 * time.Minute}, // not in the first half
		{0, time.Hour, 10000 * time.Hour, 0},                           // without expiry
	} {
		t.Run(fmt.Sprint(test.lifetime, test.early), func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{})
			w.clock.freeze()
			s := w.source(WithEarlyExpiry(test.early))
			token := w.newSignIn()
			token.Expiry = time.Time{}
			if test.lifetime > 0 {
				token.Expiry = w.clock.now().Add(test.lifetime)
			}
			require.NoError(t, s.Save(t.Context(), token))
			w.clock.advance(test.good)
			for _, s := range []*Source{s, w.source(WithEarlyExpiry(test.early))} {
				_, err := s.Token()
				require.NoError(t, err)
				require.Zero(t, w.server.Refreshes())
			}
			if test.due == 0 {
				return
			}
			w.clock.advance(test.due - test.good)
			w.server.SetLifetime(3 * time.Hour)
			_, err := s.Token()
			require.NoError(t, err)
			require.Equal(t, 1, w.server.Refreshes())
		})
	}
}

// There is nothing to do before such a token expires.
func TestNoRefreshToken(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	s := w.source(WithEarlyExpiry(20 * time.Minute))
	token := &oauth2.Token{AccessToken: "a", Expiry: w.clock.now().Add(time.Hour)}
	require.NoError(t, s.Save(t.Context(), token))
	w.advance(45 * time.Minute)
	for _, s := range []*Source{s, w.source(WithEarlyExpiry(20 * time.Minute))} {
		got, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, "a", got.AccessToken)
	}
	s.Invalidate(token)
	_, err := s.Token()
	require.ErrorIs(t, err, ErrSignInRequired)
	w.advance(16 * time.Minute)
	_, err = w.source().Token()
	require.ErrorIs(t, err, ErrSignInRequired)
	require.Zero(t, w.server.Refreshes())
}

func TestTroubleWhileTheTokenIsStillGood(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.clock.freeze()
	s := w.source(WithEarlyExpiry(10 * time.Minute))
	require.NoError(t, s.Save(t.Context(), w.newSignIn()))
	w.advance(55 * time.Minute)
	w.server.Fail(1, oauthserver.Failure{Status: 503, Code: "server_error"})
	got, err := s.Token()
	require.NoError(t, err)
	require.NotEmpty(t, got.AccessToken)
	require.Equal(t, 1, w.server.Refreshes())

	// In a new process too.
	w.server.Fail(1, oauthserver.Failure{Status: 503, Code: "server_error"})
	theirs, err := w.source(WithEarlyExpiry(10 * time.Minute)).Token()
	require.NoError(t, err)
	require.Equal(t, got.AccessToken, theirs.AccessToken)

	w.server.Fail(1, oauthserver.Failure{Status: 503, Code: "server_error"})
	w.advance(10 * time.Minute) // now it has expired
	_, err = s.Token()
	require.ErrorIs(t, err, ErrTemporary)
	_, err = s.Token()
	require.NoError(t, err)
}

func TestRetryAfter(t *testing.T) {
	for name, header := range map[string]func(now time.Time) string{
		"seconds": func(time.Time) string { return "90" },
		"date":    func(now time.Time) string { return now.Add(90 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{})
			w.clock.freeze()
			w.signedIn()
			s := w.source()
			w.server.Fail(1, oauthserver.Failure{Status: 429, Code: "slow_down", RetryAfter: header(w.clock.now())})
			for range 3 {
				_, err := s.Token()
				require.ErrorIs(t, err, ErrTemporary)
				var refused *oauth2.RetrieveError
				ok := errors.As(err, &refused)
				require.True(t, ok)
				require.Equal(t, 429, refused.Response.StatusCode)
				require.Equal(t, "slow_down", refused.ErrorCode)
				require.Regexp(t, "^(89|90)$", refused.Response.Header.Get("Retry-After"))
			}
			require.Equal(t, 1, w.server.Refreshes(), "asked once, then waited as told")

			w.advance(95 * time.Second)
			_, err := s.Token()
			require.NoError(t, err)
			require.Equal(t, 2, w.server.Refreshes())
		})
	}
	t.Run("another process was luckier", func(t *testing.T) {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		s := w.source()
		w.server.Fail(1, oauthserver.Failure{Status: 429, RetryAfter: "90"})
		_, err := s.Token()
		require.ErrorIs(t, err, ErrTemporary)
		theirs, err := w.source().Token()
		require.NoError(t, err)
		ours, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, theirs.AccessToken, ours.AccessToken)
	})
	for in, want := range map[string]time.Duration{"": 0, "-5": 0, "x": 0, "7": 7 * time.Second, "999999999": maxPause, "99999999999999999999": 0} {
		require.Equal(t, want, retryAfter(in, time.Now()), in)
	}
}

func TestNeitherTemporaryNorSignIn(t *testing.T) {
	for _, f := range []oauthserver.Failure{
		{Status: 401, Code: "invalid_client"}, {Status: 400, Code: "invalid_request"}, {Status: 400, Code: "unauthorized_client"},
		{Status: 400, Code: "unsupported_grant_type"}, {Status: 400, Code: "invalid_scope"}, {Status: 400, Code: "invalid_target"},
		{Status: 200, Code: "incorrect_client_credentials"}, // GitHub's
	} {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		w.server.Fail(1, f)
		_, err := w.source().Token()
		require.Error(t, err)
		require.NotErrorIs(t, err, ErrTemporary)
		require.NotErrorIs(t, err, ErrSignInRequired)
		require.NotNil(t, w.stored())
	}
	for _, code := range []string{"interaction_required", "login_required"} {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		w.server.Fail(1, oauthserver.Failure{Status: 400, Code: code})
		_, err := w.source().Token()
		require.ErrorIs(t, err, ErrSignInRequired)
		require.NotNil(t, w.stored(), "the refresh token may still be good")
	}
	for _, code := range []string{"bad_refresh_token", "invalid_refresh_token"} { // GitHub's and Slack's, with the status 200
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		w.server.Fail(1, oauthserver.Failure{Status: 200, Code: code})
		_, err := w.source().Token()
		require.ErrorIs(t, err, ErrSignInRequired)
		require.Nil(t, w.stored())
	}
}

// A provider that cannot be reached: no server, and no such name.
func TestUnreachable(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	conf := w.server.Config()
	require.NoError(t, w.server.Close())
	_, err := w.sourceOf(conf).Token()
	require.ErrorIs(t, err, ErrTemporary)
	require.ErrorContains(t, err, "connect")
	require.NotNil(t, w.stored())
}

func TestCancelledCallerEndsItForNobodyElse(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	s := w.source()
	held := w.server.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	impatient := begin(func() (*oauth2.Token, error) { return s.TokenContext(ctx) })
	<-held.Arrived()
	patient := begin(s.Token)
	cancel()
	r := <-impatient
	require.ErrorIs(t, r.err, context.Canceled)
	require.ErrorIs(t, r.err, ErrTemporary)
	held.Release()
	r = <-patient
	require.NoError(t, r.err)
	require.Equal(t, 1, w.server.Refreshes())
	require.Equal(t, r.token.AccessToken, w.stored().text(accessToken))
}

// The refresh token is spent; that nobody waits any more must not lose the answer.
func TestAnswerIsKeptThoughAllCallersHaveGone(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	s := w.source()
	held := w.server.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	got := begin(func() (*oauth2.Token, error) { return s.TokenContext(ctx) })
	<-held.Arrived()
	cancel()
	require.Error(t, (<-got).err)
	saved := make(chan struct{})
	var once sync.Once
	w.onStore(func(op string, call func() error) error {
		err := call()
		if op == "SaveIf" && err == nil {
			once.Do(func() { close(saved) })
		}
		return err
	})
	held.Release()
	<-saved
	_, err := w.source().Token()
	require.NoError(t, err)
	_, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, 1, w.server.Refreshes())
	require.Zero(t, w.server.Reuses())
}

func TestWaitForTheLockEndsWithTheContext(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	s := w.source()
	err := w.cache().Exclusive(t.Context(), section+" "+key, func(context.Context) error {
		ctx, cancel := context.WithCancel(t.Context())
		locking := make(chan struct{})
		w.onStore(func(op string, call func() error) error {
			if op == "LockName" {
				close(locking)
			}
			return call()
		})
		got := begin(func() (*oauth2.Token, error) { return s.TokenContext(ctx) })
		<-locking
		w.onStore(func(_ string, call func() error) error { return call() })
		cancel()
		require.ErrorIs(t, (<-got).err, context.Canceled)
		return nil
	})
	require.NoError(t, err)
	require.Zero(t, w.server.Refreshes(), "nobody waited for it any more")
	_, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, 1, w.server.Refreshes())
}

// Save and Delete of one Source at once: what Token returns is what is stored.
func TestSaveAndDeleteAtOnce(t *testing.T) {
	for name, meanwhile := range map[string]func(*world, *Source) error{
		"delete": func(_ *world, s *Source) error { return s.Delete(t.Context()) },
		"save":   func(w *world, s *Source) error { return s.Save(t.Context(), w.newSignIn()) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{})
			s := w.source()
			changed := false
			w.onStore(func(op string, call func() error) error {
				err := call()
				if op == "Unlock" && !changed { // Save has stored, and does not yet know it
					changed = true
					require.NoError(t, meanwhile(w, s))
				}
				return err
			})
			require.NoError(t, s.Save(t.Context(), w.newSignIn()))
			require.True(t, changed)
			got, err := s.Token()
			if name == "delete" {
				require.ErrorIs(t, err, ErrSignInRequired)
				require.Nil(t, w.stored())
				return
			}
			require.NoError(t, err)
			require.Equal(t, w.stored().text(accessToken), got.AccessToken)
		})
	}
}

// Delete of a sign-in that could not be saved, and a call of Token at once: nothing is
// stored after Delete.
func TestDeleteOfWhatCouldNotBeSaved(t *testing.T) {
	for name, fails := range map[string]bool{"works": false, "fails": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{})
			s := w.source()
			full := func(op string, call func() error) error {
				if op == "SaveIf" {
					return errors.New("no space left")
				}
				return call()
			}
			w.onStore(full)
			token := w.newSignIn()
			require.Error(t, s.Save(t.Context(), token))
			asked := false
			w.onStore(func(op string, call func() error) error {
				err := call()
				if fails && op == "LoadRevision" {
					return errors.New("no space left")
				}
				if op == "Unlock" && !asked { // Delete has found nothing, and is not over
					asked = true
					s.TokenContext(t.Context()) //nolint:errcheck // it may find either
				}
				return err
			})
			err := s.Delete(t.Context())
			require.True(t, asked)
			w.onStore(func(_ string, call func() error) error { return call() })
			if fails {
				require.Error(t, err)
				got, err := s.Token()
				require.NoError(t, err)
				require.Equal(t, token.AccessToken, got.AccessToken, "the sign-in is not lost")
				return
			}
			require.NoError(t, err)
			require.Nil(t, w.stored())
			_, err = s.Token()
			require.ErrorIs(t, err, ErrSignInRequired)
		})
	}
}

// Delete while Token is about to save what could not be saved.
func TestDeleteBeforeALateSave(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	s := w.source()
	w.onStore(func(op string, call func() error) error {
		if op == "SaveIf" {
			return errors.New("no space left")
		}
		return call()
	})
	require.Error(t, s.Save(t.Context(), w.newSignIn()))
	asked := false
	w.onStore(func(op string, call func() error) error {
		if op == "Lock" && !asked {
			asked = true
			require.NoError(t, s.Delete(t.Context()))
		}
		return call()
	})
	_, err := s.Token()
	require.True(t, asked)
	require.ErrorIs(t, err, ErrSignInRequired)
	require.Nil(t, w.stored())
}

// What a call reads before a change is no answer for a call after it.
func TestCallAfterAChange(t *testing.T) {
	for name, change := range map[string]func(*world, *Source, *oauth2.Token) error{
		"delete": func(_ *world, s *Source, _ *oauth2.Token) error { return s.Delete(t.Context()) },
		"save": func(w *world, s *Source, _ *oauth2.Token) error {
			token := w.newSignIn()
			token.Expiry = w.clock.now()
			return s.Save(t.Context(), token)
		},
		"invalidate": func(_ *world, s *Source, token *oauth2.Token) error {
			s.Invalidate(token)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{})
			token := w.newSignIn()
			require.NoError(t, w.source().Save(t.Context(), token))
			s := w.source()
			read, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			w.onStore(func(op string, call func() error) error {
				err := call()
				if op == "Load" {
					once.Do(func() {
						close(read)
						<-goOn
					})
				}
				return err
			})
			before := begin(s.Token)
			<-read
			require.NoError(t, change(w, s, token))
			after := begin(s.Token)
			waitForCallers(s, 2)
			close(goOn)
			<-before
			r := <-after
			if name == "delete" {
				require.ErrorIs(t, r.err, ErrSignInRequired)
				return
			}
			require.NoError(t, r.err)
			require.NotEqual(t, token.AccessToken, r.token.AccessToken)
			require.Equal(t, w.stored().text(accessToken), r.token.AccessToken)
		})
	}
}

// The same, where the change comes after the look at what was refused.
func TestCallAfterALateInvalidate(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	token := w.newSignIn()
	require.NoError(t, w.source().Save(t.Context(), token))
	s := w.source()
	var loaded atomic.Bool
	w.onStore(func(op string, call func() error) error {
		err := call()
		loaded.Store(op == "Load" && w.server.Refreshes() == 0)
		return err
	})
	after := make(chan (<-chan result), 1)
	s.now = func() time.Time {
		if loaded.CompareAndSwap(true, false) {
			w.onStore(func(_ string, call func() error) error { return call() })
			s.Invalidate(token)
			r := begin(s.Token)
			waitForCallers(s, 2)
			after <- r
		}
		return w.clock.now()
	}
	_, err := s.Token()
	require.NoError(t, err)
	r := <-<-after
	require.NoError(t, r.err)
	require.NotEqual(t, token.AccessToken, r.token.AccessToken)
	require.Equal(t, 1, w.server.Refreshes())
}

// waitForCallers waits until so many wait for the Source's flight.
func waitForCallers(s *Source, n int) {
	for {
		s.mu.Lock()
		enough := s.flights.current != nil && s.flights.current.callers >= n
		s.mu.Unlock()
		if enough {
			return
		}
		runtime.Gosched()
	}
}

// A call that comes when a flight has just been given up does not end with it.
func TestCallAfterTheOthersHaveGone(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	s := w.source()
	held := w.server.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	gone := begin(func() (*oauth2.Token, error) { return s.TokenContext(ctx) })
	<-held.Arrived()
	cancel()
	require.ErrorIs(t, (<-gone).err, context.Canceled)
	// Another process signs in meanwhile, so there is more to do than this.
	w.signedIn()
	after := make(chan (<-chan result), 1)
	unlocks := 0
	w.onStore(func(op string, call func() error) error {
		if op == "Unlock" {
			if unlocks++; unlocks == 2 { // that of the refresh, after that of the store
				r := begin(s.Token)
				waitForCallers(s, 1)
				after <- r
			}
		}
		return call()
	})
	held.Release()
	r := <-<-after
	require.NoError(t, r.err)
	require.Equal(t, w.stored().text(accessToken), r.token.AccessToken)
	require.Zero(t, w.server.Reuses())
}

// A logger may need a token itself, to send what it is given.
func TestLoggerThatNeedsAToken(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	w.onStore(func(op string, call func() error) error {
		if op == "SaveIf" {
			return errors.New("no space left")
		}
		return call()
	})
	var s *Source
	var sent []string
	s = w.source(WithLogger(slog.New(handlerFunc(func() {
		token, err := s.Token()
		if err == nil {
			sent = append(sent, token.AccessToken)
		}
	}))))
	got, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, []string{got.AccessToken}, sent)
}

type handlerFunc func()

func (handlerFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f handlerFunc) Handle(context.Context, slog.Record) error {
	f()
	return nil
}
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f handlerFunc) WithGroup(string) slog.Handler      { return f }

// Save keeps a token that it cannot store, and says so.
func TestSaveFails(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	s := w.source()
	full := errors.New("no space left")
	w.onStore(func(op string, call func() error) error {
		if op == "SaveIf" {
			return full
		}
		return call()
	})
	token := w.newSignIn()
	require.ErrorIs(t, s.Save(t.Context(), token), full)
	got, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, token.AccessToken, got.AccessToken)
	got, err = s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, token.RefreshToken, got.RefreshToken)
	require.Nil(t, w.stored())

	// It expires unsaved, and is refreshed all the same.
	w.advance(2 * time.Hour)
	got, err = s.Token()
	require.NoError(t, err)
	require.NotEqual(t, token.AccessToken, got.AccessToken)
	w.advance(2 * time.Hour)
	got, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, 2, w.server.Refreshes())
	require.Zero(t, w.server.Reuses())
	require.Nil(t, w.stored())

	w.onStore(func(_ string, call func() error) error { return call() })
	w.advance(2 * time.Minute)
	again, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, got.AccessToken, again.AccessToken)
	require.Equal(t, got.AccessToken, w.stored().text(accessToken))
}

// While a token cannot be saved, the attempts get rarer.
func TestUnsavedIsTriedLessAndLess(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.clock.freeze()
	w.signedIn()
	s := w.source()
	saves := 0
	w.onStore(func(op string, call func() error) error {
		if op == "SaveIf" {
			saves++
			return errors.New("no space left")
		}
		return call()
	})
	for range 100 {
		_, err := s.Token()
		require.NoError(t, err)
	}
	require.Equal(t, 2, saves, "the save, and the next call")
	for range 30 * 60 {
		w.advance(time.Second)
		_, err := s.Token()
		require.NoError(t, err)
	}
	require.Greater(t, saves, 30)
	require.Less(t, saves, 50)
	require.Equal(t, 1, strings.Count(w.logged.String(), "cannot store"))
	require.Equal(t, 1, w.server.Refreshes())
}

// What was stored meanwhile, or removed, is not undone by a late save.
func TestUnsavedYields(t *testing.T) {
	fails := func(ops ...string) func(string, func() error) error {
		return func(op string, call func() error) error {
			if slices.Contains(ops, op) {
				return errors.New("no space left")
			}
			return call()
		}
	}
	works := func(_ string, call func() error) error { return call() }
	refreshed := func(w *world, s *Source) string {
		w.signedIn()
		w.onStore(fails("SaveIf"))
		token, err := s.Token()
		require.NoError(t, err)
		return token.AccessToken
	}
	saved := func(before bool, ops ...string) func(*world, *Source) string {
		return func(w *world, s *Source) string {
			if before {
				w.signedIn()
				w.advance(2 * time.Second)
			}
			token := w.newSignIn()
			w.onStore(fails(ops...))
			require.Error(t, s.Save(t.Context(), token))
			return token.AccessToken
		}
	}
	for name, unsaved := range map[string]func(w *world, s *Source) string{
		"refreshed":                     refreshed,
		"saved":                         saved(true, "SaveIf"),
		"saved first":                   saved(false, "SaveIf"),
		"saved, nothing readable":       saved(true, "LoadRevision"),
		"saved first, nothing readable": saved(false, "LoadRevision"),
	} {
		begin := func(t *testing.T) (w *world, s *Source, ours string) {
			w = newWorld(t, oauthserver.Options{})
			s = w.source()
			ours = unsaved(w, s)
			w.onStore(works)
			return w, s, ours
		}
		t.Run(name+"/nothing else", func(t *testing.T) {
			w, s, ours := begin(t)
			got, err := s.Token()
			require.NoError(t, err)
			require.Equal(t, ours, got.AccessToken)
			require.Equal(t, ours, w.stored().text(accessToken))
		})
		t.Run(name+"/sign-in elsewhere", func(t *testing.T) {
			w, s, _ := begin(t)
			w.advance(2 * time.Second)
			other := w.newSignIn()
			require.NoError(t, w.source().Save(t.Context(), other))
			got, err := s.Token()
			require.NoError(t, err)
			require.Equal(t, other.AccessToken, got.AccessToken)
			require.Equal(t, other.RefreshToken, w.stored().text(refreshToken))
		})
		if strings.HasPrefix(name, "saved first") {
			continue // a sign-out leaves what there was at the save: nothing
		}
		t.Run(name+"/sign-out elsewhere", func(t *testing.T) {
			w, s, ours := begin(t)
			// What can be read only now is what it is to replace.
			got, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, ours, got.AccessToken)
			require.NoError(t, w.source().Delete(t.Context()))
			_, err = s.Token()
			require.ErrorIs(t, err, ErrSignInRequired)
			require.Nil(t, w.stored())
		})
	}
}

// A token that cannot be saved either is to replace what it was got for, not
// what one before it was to replace.
func TestUnsavedAfterASignInElsewhere(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.clock.freeze()
	w.signedIn()
	s := w.source()
	full := func(op string, call func() error) error {
		if op == "SaveIf" {
			return errors.New("no space left")
		}
		return call()
	}
	works := func(_ string, call func() error) error { return call() }
	w.onStore(full)
	var token *oauth2.Token
	for range 10 { // until it is tried again each minute only
		var err error
		token, err = s.Token()
		require.NoError(t, err)
		w.advance(61 * time.Second)
	}
	_, err := s.Token()
	require.NoError(t, err)
	w.onStore(works)
	w.signedIn()
	w.onStore(full)
	s.Invalidate(token)
	_, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, 2, w.server.Refreshes())
	w.onStore(works)
	w.advance(61 * time.Second)
	token, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, 2, w.server.Refreshes())
	require.Zero(t, w.server.Reuses())
	require.Equal(t, token.AccessToken, w.stored().text(accessToken))
}

func TestStorageTrouble(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	s := w.source()
	w.onStore(func(op string, call func() error) error { return persistence.ErrKeyringLocked })
	_, err := s.Token()
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.NotErrorIs(t, err, ErrSignInRequired)
	require.ErrorIs(t, s.Delete(t.Context()), persistence.ErrKeyringLocked)
	w.onStore(func(_ string, call func() error) error { return call() })
	_, err = s.Token()
	require.NoError(t, err)

	require.NoError(t, w.memory.Save(t.Context(), []byte(`["no", "cache"]`)))
	w.advance(2 * time.Hour)
	_, err = s.Token()
	require.ErrorIs(t, err, persistence.ErrCorrupt)
	require.ErrorIs(t, s.Save(t.Context(), w.newSignIn()), persistence.ErrCorrupt)
	data, err := w.memory.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, `["no", "cache"]`, string(data), "what is not understood is not overwritten")

	require.NoError(t, w.memory.Save(t.Context(), []byte(`{"OAuth2Token":{"example alice":"?"}}`)))
	_, err = w.source().Token()
	require.ErrorIs(t, err, ErrSignInRequired)
	require.NoError(t, w.source().Save(t.Context(), w.newSignIn()))
	_, err = w.source().Token()
	require.NoError(t, err)
}

// A Versioned without any lock has none of a name either.
type lockless struct{ persistence.Versioned }

func TestNoNamedLocks(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	c, err := persistence.New(lockless{w.memory})
	require.NoError(t, err)
	s, err := New(t.Context(), c, key, w.server.Config())
	require.NoError(t, err)
	_, err = s.Token()
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "WithLockFile")
	require.Zero(t, w.server.Refreshes())
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	c, conf := w.cache(), w.server.Config()
	var nobody *oauth2.Config
	var nowhere context.Context
	for name, try := range map[string]func() (*Source, error){
		"context":   func() (*Source, error) { return New(nowhere, c, key, conf) },
		"cache":     func() (*Source, error) { return New(t.Context(), nil, key, conf) },
		"key":       func() (*Source, error) { return New(t.Context(), c, "", conf) },
		"not UTF-8": func() (*Source, error) { return New(t.Context(), c, "a\xff", conf) },
		"no conf":   func() (*Source, error) { return New(t.Context(), c, key, nil) },
		"conf":      func() (*Source, error) { return New(t.Context(), c, key, nobody) },
		"early":     func() (*Source, error) { return New(t.Context(), c, key, conf, WithEarlyExpiry(-1)) },
	} {
		_, err := try()
		var e *persistence.Error
		require.ErrorAs(t, err, &e, name)
		require.NotEmpty(t, e.Remedy)
	}
	s, err := New(t.Context(), c, key, conf, nil, WithLogger(nil))
	require.NoError(t, err)
	for _, token := range []*oauth2.Token{nil, {}} {
		require.Error(t, s.Save(t.Context(), token))
	}
}

// The HTTP client comes from the context, of New if that of the call has none.
func TestHTTPClient(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	var by []string
	via := func(name string) context.Context {
		return context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			by = append(by, name)
			return http.DefaultTransport.RoundTrip(r)
		})})
	}
	s, err := New(via("new"), w.cache(), key, w.server.Config())
	require.NoError(t, err)
	s.now = w.clock.now
	for _, call := range []func() (*oauth2.Token, error){
		s.Token,
		func() (*oauth2.Token, error) { return s.TokenContext(t.Context()) },
		func() (*oauth2.Token, error) { return s.TokenContext(via("call")) },
	} {
		_, err := call()
		require.NoError(t, err)
		w.advance(3 * time.Hour)
	}
	require.Equal(t, []string{"new", "new", "call"}, by)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// package oauth2 writes to the tokens that it is given.
func TestUnderPackageOAuth2(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	require.NoError(t, w.source().Save(t.Context(), w.newSignIn()))
	s := w.source()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			client := oauth2.NewClient(t.Context(), s)
			if i%2 == 0 {
				client = &http.Client{Transport: &oauth2.Transport{Source: oauth2.ReuseTokenSourceWithExpiry(nil, s, time.Minute)}}
			}
			res, err := client.Get(w.server.URL + "/me")
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			var me struct{ User string }
			if err := json.NewDecoder(res.Body).Decode(&me); err != nil || me.User != "alice" {
				t.Errorf("%v %q", err, me.User)
			}
			token, err := s.Token()
			if err != nil || !token.Valid() {
				t.Errorf("%v %t", err, token.Valid())
			}
		})
	}
	wg.Wait()
}

// The provider echoes what it was sent, wherever it can.
func TestNoSecretInErrors(t *testing.T) {
	for name, f := range map[string]func(sent string) oauthserver.Failure{
		"description": func(sent string) oauthserver.Failure {
			return oauthserver.Failure{Status: 400, Code: "invalid_grant", Description: "Bad token " + sent + "!"}
		},
		"code": func(sent string) oauthserver.Failure { return oauthserver.Failure{Status: 400, Code: sent} },
		"body": func(sent string) oauthserver.Failure { return oauthserver.Failure{Status: 403, Body: "<p>" + sent} },
		"5xx":  func(sent string) oauthserver.Failure { return oauthserver.Failure{Status: 500, Body: "<p>" + sent} },
		"hotel": func(sent string) oauthserver.Failure {
			return oauthserver.Failure{Status: 200, Body: sent}
		},
		"retry": func(sent string) oauthserver.Failure {
			return oauthserver.Failure{Status: 503, Code: "server_error", RetryAfter: sent}
		},
		"number": func(sent string) oauthserver.Failure { // package oauth2 quotes it
			return oauthserver.Failure{Status: 200, Body: `{"access_token":"x","expires_in":"` + sent + `"}`}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{Secret: "planted client secret"})
			token := w.signedIn()
			conf := w.server.Config()
			conf.ClientSecret = "planted client secret"
			s := w.sourceOf(conf)
			w.onStore(func(op string, call func() error) error {
				if op == "SaveIf" {
					return errors.New("no space left")
				}
				return call()
			})
			sent := token.RefreshToken + " " + token.AccessToken + " " + conf.ClientSecret
			w.server.Fail(1, f(sent))
			_, err := s.Token()
			require.Error(t, err)
			var texts []string
			var walk func(err error)
			walk = func(err error) {
				texts = append(texts, err.Error(), fmt.Sprintf("%+v %#v", err, err))
				if refused, ok := err.(*oauth2.RetrieveError); ok {
					texts = append(texts, string(refused.Body), fmt.Sprintf("%+v", *refused.Response))
				}
				switch e := err.(type) {
				case interface{ Unwrap() error }:
					if e.Unwrap() != nil {
						walk(e.Unwrap())
					}
				case interface{ Unwrap() []error }:
					for _, err := range e.Unwrap() {
						walk(err)
					}
				}
			}
			walk(err)
			slog.New(slog.NewTextHandler(&w.logged, nil)).Error("failed", "err", err)
			if _, err := s.Token(); err == nil { // exchanged, and not saved
				require.Contains(t, w.logged.String(), "cannot store")
			}
			all := strings.Join(texts, "\n") + w.logged.String()
			for _, secret := range append(w.server.Issued(), conf.ClientSecret) {
				require.NotContains(t, all, secret)
			}
			require.NotContains(t, all, token.RefreshToken[:20])
		})
	}
}

// A Source in use by many goroutines through every kind of trouble.
func TestManyGoroutines(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	sources := []*Source{w.source(), w.source(), w.source()}
	const rounds = 10
	for range rounds {
		var wg sync.WaitGroup
		for i := range 24 {
			wg.Go(func() {
				s := sources[i%len(sources)]
				token, err := s.Token()
				if err != nil {
					t.Error(err)
				}
				s.Invalidate(&oauth2.Token{AccessToken: "stale"})
				_ = token
			})
		}
		wg.Wait()
		w.advance(10 * time.Hour)
	}
	require.Equal(t, rounds, w.server.Refreshes())
	require.Zero(t, w.server.Reuses())
}

func TestAdopt(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	s := w.source()
	old := w.newSignIn()
	removed := 0
	busy := errors.New("busy")
	var broken error
	read := func(context.Context) (*oauth2.Token, error) {
		if removed > 0 {
			return nil, fs.ErrNotExist
		}
		return old, nil
	}
	remove := func(context.Context) error {
		if broken != nil {
			return broken
		}
		removed++
		return nil
	}
	broken = busy
	stored, err := s.Adopt(t.Context(), read, remove)
	require.ErrorIs(t, err, busy)
	require.True(t, stored)
	got, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, old.AccessToken, got.AccessToken)
	require.Equal(t, w.server.Config().ClientID, w.stored().text(boundClient))

	// The user signs out before the old copy could be removed.
	require.NoError(t, s.Delete(t.Context()))
	broken = nil
	stored, err = s.Adopt(t.Context(), read, remove)
	require.NoError(t, err)
	require.False(t, stored)
	require.Equal(t, 1, removed)
	_, err = s.Token()
	require.ErrorIs(t, err, ErrSignInRequired)
	stored, err = s.Adopt(t.Context(), read, remove)
	require.NoError(t, err)
	require.False(t, stored)

	// Of two tokens the one that expires later stays.
	for later, want := range map[time.Duration]bool{-time.Hour: false, 0: false, time.Hour: true} {
		here := w.newSignIn()
		require.NoError(t, s.Save(t.Context(), here))
		old, removed = w.newSignIn(), 0
		old.Expiry = here.Expiry.Add(later)
		stored, err = s.Adopt(t.Context(), read, remove)
		require.NoError(t, err)
		require.Equal(t, want, stored, later)
		require.Equal(t, 1, removed)
		got, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, want, got.AccessToken == old.AccessToken)
	}
	old, removed = new(oauth2.Token), 0
	_, err = s.Adopt(t.Context(), read, remove)
	require.ErrorContains(t, err, "empty")
	require.Zero(t, removed)
}

// A sign-in that could not be saved counts in Adopt as one that is stored: the one of
// both that expires later is stored, and remains.
func TestAdoptBesideWhatIsUnsaved(t *testing.T) {
	for name, tc := range map[string]struct {
		later time.Duration // how much later the adopted token expires
		want  bool          // it is stored
	}{
		"the sign-in expires later": {-time.Hour, false},
		"they expire together":      {0, false},
		"the adopted expires later": {time.Hour, true},
	} {
		for kind, before := range map[string]func(w *world){
			"a first sign-in": func(*world) {},
			"over another":    func(w *world) { w.signedIn() },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				w := newWorld(t, oauthserver.Options{})
				before(w)
				w.onStore(func(op string, call func() error) error {
					if op == "SaveIf" {
						return errors.New("the disk is full")
					}
					return call()
				})
				s := w.source()
				here, old := w.newSignIn(), w.newSignIn()
				old.Expiry = here.Expiry.Add(tc.later)
				require.ErrorContains(t, s.Save(t.Context(), here), "full")
				read := func(context.Context) (*oauth2.Token, error) { return old, nil }
				removed := 0
				remove := func(context.Context) error { removed++; return nil }
				stored, err := s.Adopt(t.Context(), read, remove)
				require.ErrorContains(t, err, "full")
				require.False(t, stored)
				require.Zero(t, removed)
				got, err := s.Load(t.Context())
				require.NoError(t, err)
				require.Equal(t, here.RefreshToken, got.RefreshToken, "it is not forgotten")

				w.onStore(func(_ string, call func() error) error { return call() })
				stored, err = s.Adopt(t.Context(), read, remove)
				require.NoError(t, err)
				require.Equal(t, tc.want, stored)
				require.Equal(t, 1, removed)
				want := here
				if tc.want {
					want = old
				}
				for _, other := range []*Source{s, w.source()} {
					got, err := other.Token()
					require.NoError(t, err)
					require.Equal(t, want.AccessToken, got.AccessToken)
				}
				require.Equal(t, want.RefreshToken, w.stored().text(refreshToken))
			})
		}
	}
}

// What makes a Source forget a sign-in that could not be saved, as the comment of Save
// says: what changes the store, its own Delete, and the sign-outs of its Cache.
func TestWhatForgetsAnUnsavedSignIn(t *testing.T) {
	signOutAll := func(w *world, _ *Source) error { return w.cache().SignOutAll(t.Context()) }
	for name, test := range map[string]struct {
		stored  bool // a sign-in was stored before
		signOut func(w *world, s *Source) error
		forgets bool
	}{
		"its Delete, and one was stored":               {true, func(_ *world, s *Source) error { return s.Delete(t.Context()) }, true},
		"its Delete":                                   {false, func(_ *world, s *Source) error { return s.Delete(t.Context()) }, true},
		"SignOutAll, and one was stored":               {true, signOutAll, true},
		"SignOutAll of another Cache":                  {false, signOutAll, false},
		"SignOutAll of its Cache":                      {false, func(_ *world, s *Source) error { return s.cache.SignOutAll(t.Context()) }, true},
		"Delete of its Cache, and one was stored":      {true, func(_ *world, s *Source) error { return s.cache.Delete(t.Context()) }, true},
		"Delete of its Cache":                          {false, func(_ *world, s *Source) error { return s.cache.Delete(t.Context()) }, true},
		"Delete of another Source":                     {false, func(w *world, _ *Source) error { return w.source().Delete(t.Context()) }, false},
		"Save of another Source":                       {false, func(w *world, _ *Source) error { return w.source().Save(t.Context(), w.newSignIn()) }, true},
		"Save of another Source, and one was stored":   {true, func(w *world, _ *Source) error { return w.source().Save(t.Context(), w.newSignIn()) }, true},
		"control: nothing happens, and one was stored": {true, func(*world, *Source) error { return nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{})
			if test.stored {
				w.signedIn()
			}
			w.onStore(func(op string, call func() error) error {
				if op == "SaveIf" {
					return errors.New("the disk is full")
				}
				return call()
			})
			s, token := w.source(), w.newSignIn()
			require.ErrorContains(t, s.Save(t.Context(), token), "full")
			w.onStore(func(_ string, call func() error) error { return call() })
			require.NoError(t, test.signOut(w, s))
			got, err := s.Token()
			if !test.forgets {
				require.NoError(t, err)
				require.Equal(t, token.AccessToken, got.AccessToken)
				require.Equal(t, token.RefreshToken, w.stored().text(refreshToken))
				return
			}
			if err == nil { // of another sign-in
				require.NotEqual(t, token.AccessToken, got.AccessToken)
			} else {
				require.ErrorIs(t, err, ErrSignInRequired)
			}
			require.NotEqual(t, token.RefreshToken, w.stored().text(refreshToken))
		})
	}
}

// A sign-in that fails to be saved while everybody is signed out is forgotten. The
// control is one that fails without that.
func TestSignOutAllDuringSave(t *testing.T) {
	for _, signsOut := range []bool{true, false} {
		w := newWorld(t, oauthserver.Options{})
		s, signedOut := w.source(), make(chan error, 1)
		w.onStore(func(op string, call func() error) error {
			if op != "SaveIf" {
				return call()
			}
			if signsOut {
				before := signedout.Everybody(s.cache)
				go func() { signedOut <- s.cache.SignOutAll(context.WithoutCancel(t.Context())) }()
				for signedout.Everybody(s.cache) == before {
					runtime.Gosched()
				}
			}
			return errors.New("the disk is full")
		})
		require.ErrorContains(t, s.Save(t.Context(), w.newSignIn()), "full")
		w.onStore(func(_ string, call func() error) error { return call() })
		if !signsOut {
			_, err := s.Token()
			require.NoError(t, err)
			continue
		}
		require.NoError(t, <-signedOut)
		_, err := s.Token()
		require.ErrorIs(t, err, ErrSignInRequired)
		require.Nil(t, w.stored())
	}
}

// A sign-in that fails to be saved while Adopt is under way is not forgotten.
func TestSaveDuringAdopt(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	s := w.source()
	old, here := w.newSignIn(), w.newSignIn()
	stored, err := s.Adopt(t.Context(),
		func(context.Context) (*oauth2.Token, error) { return old, nil },
		func(context.Context) error { // stored, and not yet removed
			w.onStore(func(op string, call func() error) error {
				if op == "SaveIf" {
					return errors.New("the disk is full")
				}
				return call()
			})
			require.ErrorContains(t, s.Save(t.Context(), here), "full")
			w.onStore(func(_ string, call func() error) error { return call() })
			return nil
		})
	require.NoError(t, err)
	require.True(t, stored)
	got, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, here.AccessToken, got.AccessToken)
	require.Equal(t, here.RefreshToken, w.stored().text(refreshToken))
}

// The error says whether anybody was signed in, and what a program lacks that asks
// its user again and again.
func TestSignInRequiredSaysWhy(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	_, err := w.source().Token()
	require.ErrorIs(t, err, ErrSignInRequired)
	require.ErrorContains(t, err, "no token is stored. Sign in.")

	token := w.newSignIn()
	token.RefreshToken, token.Expiry = "", w.clock.now().Add(-time.Minute)
	require.NoError(t, w.source().Save(context.Background(), token))
	_, err = w.source().Token()
	require.ErrorIs(t, err, ErrSignInRequired)
	require.ErrorContains(t, err, "has no refresh token. Sign in again.")
	require.Contains(t, persistence.Remedy(err), "offline_access")
}

// A sign-out under a key that Keys has named needs no client and no provider.
func TestDeleteWithoutAConfiguration(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	token := w.signedIn()
	keys, err := Keys(t.Context(), w.cache())
	require.NoError(t, err)
	require.Equal(t, []string{key}, keys)
	s := w.sourceOf(&oauth2.Config{})
	found, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, token.RefreshToken, found.RefreshToken, "to revoke it")
	_, err = s.Token()
	require.ErrorIs(t, err, ErrOtherClient, "control: it cannot refresh")
	require.NoError(t, s.Delete(t.Context()))
	keys, err = Keys(t.Context(), w.cache())
	require.NoError(t, err)
	require.Empty(t, keys)
}

// The access token alone says which token was refused, as a program has it that knows
// only the request.
func TestInvalidateByTheRequest(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	s := w.source()
	first, err := s.Token()
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	first.SetAuthHeader(r)
	for range 2 { // the second time it is no longer the current one, and nothing is refreshed
		s.Invalidate(&oauth2.Token{AccessToken: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")})
		second, err := s.Token()
		require.NoError(t, err)
		require.NotEqual(t, first.AccessToken, second.AccessToken)
	}
	require.Equal(t, 2, w.server.Refreshes(), "one for each token")
}

// An answer 401 that comes late, to a request with an older token, does not take back
// that the current token was refused.
func TestALateInvalidateForgetsNothing(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	s := w.source()
	first, err := s.Token()
	require.NoError(t, err)
	s.Invalidate(first)
	second, err := s.Token()
	require.NoError(t, err)
	s.Invalidate(second)
	s.Invalidate(first)
	third, err := s.Token()
	require.NoError(t, err)
	require.NotContains(t, []string{first.AccessToken, second.AccessToken}, third.AccessToken)
}
