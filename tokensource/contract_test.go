package tokensource

// The contract of the package comment, point by point. Each scenario is passed by
// a Source, and by model, which is the contract written out in the plainest way;
// and it is failed by the model with the flaw that the scenario is there to
// find.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// flaw is what a model does wrong.
type flaw string

const (
	none           flaw = ""
	asksAlways     flaw = "looks at the store though its token is good"
	noLock         flaw = "takes no lock"
	readsOnce      flaw = "does not read again under the lock"
	savesLater     flaw = "hands the token out before it is saved"
	failsUnsaved   flaw = "fails if it cannot save"
	forgetsUnsaved flaw = "forgets what it could not save"
	clearsAll      flaw = "clears whatever is stored"
	clearsNothing  flaw = "keeps a refresh token that is good for nothing"
	signsOut       flaw = "signs out on any error"
	dropsFields    flaw = "keeps only what the last response had"
	knowsItsOwn    flaw = "keeps only the fields that it knows"
	locksElsewhere flaw = "has its lock in the temporary folder"
	resurrects     flaw = "stores what it has got though the user has signed out"
	asksAnybody    flaw = "sends a refresh token wherever it is configured to"
)

type model struct {
	flaw  flaw
	cache *persistence.Cache
	conf  *oauth2.Config
	now   func() time.Time

	mu      sync.Mutex
	hand    entry
	unsaved entry
}

func (m *model) good(e entry) bool {
	return e != nil && e.text(accessToken) != "" && m.now().Before(e.time(expiresOn))
}

func (m *model) Token() (*oauth2.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx := context.Background()
	if m.unsaved != nil {
		if m.save(ctx, m.unsaved) == nil {
			m.unsaved = nil
		}
	}
	if m.good(m.hand) && m.flaw != asksAlways {
		return m.hand.token(false), nil
	}
	first, err := m.read(ctx)
	if err != nil {
		return nil, err
	}
	if m.good(first) {
		m.hand = first
		return first.token(false), nil
	}
	lock := m.cache.Exclusive
	switch m.flaw {
	case noLock:
		lock = func(ctx context.Context, _ string, fn func(context.Context) error) error { return fn(ctx) }
	case locksElsewhere:
		lock = func(ctx context.Context, _ string, fn func(context.Context) error) error {
			unlock, err := persistence.NewFileLock(filepath.Join(os.TempDir(), "refresh.lock")).Lock(ctx)
			if err != nil {
				return err
			}
			return errors.Join(fn(ctx), unlock())
		}
	}
	err = lock(ctx, section+" "+key, func(ctx context.Context) error { return m.refresh(ctx, first) })
	if err != nil {
		return nil, err
	}
	return m.hand.token(false), nil
}

func (m *model) refresh(ctx context.Context, first entry) error {
	e := first
	if m.flaw != readsOnce {
		var err error
		if e, err = m.read(ctx); err != nil {
			return err
		}
	}
	if m.good(e) {
		m.hand = e
		return nil
	}
	sent := e.text(refreshToken)
	if sent == "" {
		return ErrSignInRequired
	}
	if id := e.text(boundClient); id != "" && id != m.conf.ClientID && m.flaw != asksAnybody {
		return ErrOtherClient
	}
	t, err := m.conf.TokenSource(ctx, &oauth2.Token{RefreshToken: sent}).Token()
	if err != nil {
		f := newFailure(err, m.now(), func(text string) string { return text })
		if !f.gone && m.flaw != signsOut {
			return f
		}
		again, err := m.read(ctx)
		if err != nil {
			return err
		}
		switch {
		case m.flaw == clearsNothing:
		case m.flaw == clearsAll || m.flaw == signsOut || again.text(refreshToken) == sent:
			if err := m.save(ctx, nil); err != nil {
				return err
			}
		default:
			return m.refresh(ctx, again)
		}
		return ErrSignInRequired
	}
	next := e.refreshed(t, m.now())
	switch m.flaw {
	case dropsFields:
		next = newEntry(t, m.now())
		if t.Extra(refreshToken) == nil {
			delete(next, refreshToken)
		}
	case knowsItsOwn:
		for name := range next {
			switch name {
			case accessToken, tokenType, refreshToken, cachedAt, expiresOn:
			default:
				delete(next, name)
			}
		}
	}
	if now, err := m.read(ctx); err == nil && now == nil && m.flaw != resurrects {
		return ErrSignInRequired
	}
	m.hand = next
	if m.flaw == savesLater {
		m.unsaved = next
		return nil
	}
	if err := m.save(ctx, next); err != nil {
		if m.flaw == failsUnsaved {
			return err
		}
		if m.flaw != forgetsUnsaved {
			m.unsaved = next
		}
	}
	return nil
}

func (m *model) read(ctx context.Context) (entry, error) {
	data, err := m.cache.Load(ctx)
	if err != nil && !errors.Is(err, persistence.ErrNotFound) {
		return nil, err
	}
	return find(data, key)
}

func (m *model) save(ctx context.Context, e entry) error {
	return m.cache.Update(ctx, func(data []byte) ([]byte, error) { return replace(data, key, e) })
}

// programs makes programs that share a world: Sources, or models with a flaw.
type programs func(w *world) oauth2.TokenSource

// check is an error if a condition is not so.
func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// scenarios return nil if the program does as it should.
var scenarios = []struct {
	name  string
	flaws []flaw
	run   func(t *testing.T, program programs) error
}{
	{"1: a good token in hand costs nothing", []flaw{asksAlways}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		p := program(w)
		first, err := p.Token()
		if err != nil {
			return err
		}
		var calls int
		w.onStore(func(string, func() error) error { calls++; return errors.New("the store is used") })
		again, err := p.Token()
		return errors.Join(err, check(calls == 0 && again != nil && again.AccessToken == first.AccessToken, "the store was called %d times", calls))
	}},
	{"1: one refresh for all", []flaw{noLock}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		// The first answer waits until another program asks the provider too, or
		// all others wait for the lock.
		const n = 4
		held := w.server.Hold()
		var locking atomic.Int32
		allWait := make(chan struct{})
		w.onStore(func(op string, call func() error) error {
			if op == "LockName" && locking.Add(1) == n {
				close(allWait)
			}
			return call()
		})
		results := []<-chan result{begin(program(w).Token)}
		<-held.Arrived()
		second := w.server.Hold()
		for range n - 1 {
			results = append(results, begin(program(w).Token))
		}
		select {
		case <-allWait:
		case <-second.Arrived():
		}
		held.Release()
		second.Release()
		var errs []error
		tokens := map[string]bool{}
		for _, r := range results {
			got := <-r
			errs = append(errs, got.err)
			if got.token != nil {
				tokens[got.token.AccessToken] = true
			}
		}
		errs = append(errs, check(len(tokens) == 1 && w.server.Refreshes() == 1 && w.server.Reuses() == 0,
			"%d tokens, %d requests, %d reuses", len(tokens), w.server.Refreshes(), w.server.Reuses()))
		return errors.Join(errs...)
	}},
	{"2: what another program has refreshed is used", []flaw{readsOnce}, func(t *testing.T, program programs) error {
		return whileItWaits(t, program, func(w *world, other *oauth2.Token) {
			require.NoError(t, w.source().Save(t.Context(), other))
		}, func(w *world, other *oauth2.Token, got result) error {
			return errors.Join(got.err, check(got.token != nil && got.token.AccessToken == other.AccessToken && w.server.Refreshes() == 0,
				"%d requests, and not the token of the other program", w.server.Refreshes()))
		})
	}},
	{"2: the refresh token is the one read under the lock", []flaw{readsOnce}, func(t *testing.T, program programs) error {
		return whileItWaits(t, program, func(w *world, other *oauth2.Token) {
			other.Expiry = w.clock.now().Add(-time.Minute)
			require.NoError(t, w.source().Save(t.Context(), other))
		}, func(w *world, other *oauth2.Token, got result) error {
			_, spent := w.server.Config().TokenSource(t.Context(), &oauth2.Token{RefreshToken: other.RefreshToken}).Token()
			return errors.Join(got.err, check(spent != nil, "another refresh token was sent"))
		})
	}},
	{"3: saved before it is handed out", []flaw{savesLater}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		token, err := program(w).Token()
		if err != nil {
			return err
		}
		return check(w.stored().text(accessToken) == token.AccessToken, "the token is not stored yet")
	}},
	{"3: a token that cannot be saved is kept, and saved later", []flaw{failsUnsaved, forgetsUnsaved}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		old := w.signedIn()
		p := program(w)
		full := errors.New("no space left")
		w.onStore(func(op string, call func() error) error {
			if op == "SaveIf" {
				return full
			}
			return call()
		})
		token, err := p.Token()
		if err != nil {
			return err
		}
		require.Equal(t, old.RefreshToken, w.stored().text(refreshToken))
		w.onStore(func(_ string, call func() error) error { return call() })
		again, err := p.Token()
		if err != nil {
			return err
		}
		if err := check(again.AccessToken == token.AccessToken && w.stored().text(accessToken) == token.AccessToken, "it was not saved later"); err != nil {
			return err
		}
		w.advance(2 * time.Hour)
		_, err = program(w).Token()
		return errors.Join(err, check(w.server.Reuses() == 0, "a spent refresh token was sent"))
	}},
	{"4: a refused refresh token is removed", []flaw{clearsNothing}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		require.NoError(t, w.server.Revoke("alice"))
		_, err := program(w).Token()
		return check(errors.Is(err, ErrSignInRequired) && !errors.Is(err, ErrTemporary) && w.stored() == nil, "%v; stored: %t", err, w.stored() != nil)
	}},
	{"4: a refresh token of a new sign-in is used, not removed", []flaw{clearsAll}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		require.NoError(t, w.server.Revoke("alice"))
		held := w.server.Hold()
		got := begin(program(w).Token)
		<-held.Arrived()
		token := w.newSignIn()
		token.Expiry = w.clock.now().Add(-time.Minute)
		require.NoError(t, w.source().Save(t.Context(), token)) // in the place of what was sent
		held.Release()
		r := <-got
		return errors.Join(r.err, check(w.stored() != nil && w.server.Refreshes() == 2, "the new sign-in is gone"))
	}},
	{"5: trouble of the provider costs nothing", []flaw{signsOut}, func(t *testing.T, program programs) error {
		for _, f := range []oauthserver.Failure{
			{Status: 0}, {Status: 500, Body: "<p>oops</p>"}, {Status: 503, Code: "temporarily_unavailable"}, {Status: 400, Code: "server_error"},
			{Status: 408, Body: "late"}, {Status: 429, Code: "slow_down"}, {Status: 429, Body: "<p>slow down</p>"}, {Status: 200, Body: "<p>Welcome to the hotel!</p>"},
		} {
			w := newWorld(t, oauthserver.Options{})
			w.signedIn()
			before, err := w.memory.Load(t.Context())
			require.NoError(t, err)
			p := program(w)
			w.server.Fail(1, f)
			_, err = p.Token()
			if err := check(errors.Is(err, ErrTemporary) && !errors.Is(err, ErrSignInRequired), "%v: %v", f, err); err != nil {
				return err
			}
			after, err := w.memory.Load(t.Context())
			require.NoError(t, err)
			if err := check(string(before) == string(after), "%v: what is stored has changed", f); err != nil {
				return err
			}
			if _, err = p.Token(); err != nil {
				return err
			}
			if err := check(w.server.Refreshes() == 2, "%v: %d requests", f, w.server.Refreshes()); err != nil {
				return err
			}
		}
		return nil
	}},
	{"6: what the provider leaves out is kept", []flaw{dropsFields}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{NoRotation: true})
		token := w.newSignIn()
		token.Expiry = w.clock.now().Add(-time.Minute)
		token = token.WithExtra(map[string]any{"id_token": "the first", "scope": "profile"})
		require.NoError(t, w.source().Save(t.Context(), token))
		for range 3 {
			p := program(w)
			if _, err := p.Token(); err != nil {
				return err
			}
			w.advance(2 * time.Hour)
		}
		e := w.stored()
		return check(e.text(refreshToken) == token.RefreshToken && e.text("id_token") == "the first" && e.text("scope") == "profile" && w.server.Refreshes() == 3, "stored: %s", e)
	}},
	{"6: unknown fields are kept", []flaw{knowsItsOwn}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{Extra: map[string]any{"deep": map[string]any{"list": []any{1.0, "two"}}, "n": 3, "scope": "a b"}})
		w.signedIn()
		token, err := program(w).Token()
		if err != nil {
			return err
		}
		again, err := program(w).Token() // from the store
		if err != nil {
			return err
		}
		want := fmt.Sprint(map[string]any{"list": []any{1.0, "two"}}, 3.0, "a b")
		for _, t := range []*oauth2.Token{token, again} {
			if err := check(fmt.Sprint(t.Extra("deep"), t.Extra("n"), t.Extra("scope")) == want, "%v %v", t.Extra("deep"), t.Extra("n")); err != nil {
				return err
			}
		}
		return nil
	}},
	{"7: the locks lie beside the data", []flaw{locksElsewhere}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		temp, dir := t.TempDir(), t.TempDir()
		for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
			t.Setenv(name, temp)
		}
		raw := encrypted.Raw(make([]byte, 32))
		f, err := encrypted.New(filepath.Join(dir, "cache"), raw, nil)
		require.NoError(t, err)
		c, err := persistence.New(f)
		require.NoError(t, err)
		token := w.newSignIn()
		token.Expiry = w.clock.now().Add(-time.Minute)
		src, err := New(t.Context(), c, key, w.server.Config())
		require.NoError(t, err)
		require.NoError(t, src.Save(t.Context(), token))
		p := program(w)
		switch p := p.(type) { // the same program, on a real file
		case *Source:
			p.cache = c
		case *model:
			p.cache = c
		}
		if _, err := p.Token(); err != nil {
			return err
		}
		litter, err := os.ReadDir(temp)
		require.NoError(t, err)
		locks, err := filepath.Glob(filepath.Join(dir, "cache.lock.*"))
		require.NoError(t, err)
		return check(len(litter) == 0 && len(locks) > 0, "%d files in the temporary folder, %d lock files of names beside the data", len(litter), len(locks))
	}},
	{"8: another client's refresh token is sent nowhere", []flaw{asksAnybody}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		w.expired(w.sourceOf(w.config(otherClient)))
		_, err := program(w).Token()
		return check(errors.Is(err, ErrOtherClient) && w.server.Refreshes() == 0 && w.stored() != nil, "%v, %d requests", err, w.server.Refreshes())
	}},
	{"a sign-out during a refresh sticks", []flaw{resurrects}, func(t *testing.T, program programs) error {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		held := w.server.Hold()
		p := program(w)
		got := begin(p.Token)
		<-held.Arrived()
		require.NoError(t, w.source().Delete(t.Context()))
		held.Release()
		r := <-got
		_, later := p.Token()
		return check(errors.Is(r.err, ErrSignInRequired) && errors.Is(later, ErrSignInRequired) && w.stored() == nil, "%v, %v", r.err, later)
	}},
}

// whileItWaits lets a program that has read the store wait for the lock, has
// another one do something meanwhile with a new sign-in's token, and looks at the
// result.
func whileItWaits(t *testing.T, program programs, meanwhile func(*world, *oauth2.Token), look func(*world, *oauth2.Token, result) error) error {
	w := newWorld(t, oauthserver.Options{})
	w.signedIn()
	other := w.newSignIn()
	p := program(w)
	locking := make(chan struct{})
	var got <-chan result
	err := w.cache().Exclusive(t.Context(), section+" "+key, func(context.Context) error {
		w.onStore(func(op string, call func() error) error {
			if op == "LockName" {
				close(locking)
			}
			return call()
		})
		got = begin(p.Token)
		<-locking
		w.onStore(func(_ string, call func() error) error { return call() })
		meanwhile(w, other)
		return nil
	})
	require.NoError(t, err)
	return look(w, other, <-got)
}

func TestContract(t *testing.T) {
	models := func(f flaw) programs {
		return func(w *world) oauth2.TokenSource {
			return &model{flaw: f, cache: w.cache(), conf: w.server.Config(), now: w.clock.now}
		}
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			require.NoError(t, s.run(t, func(w *world) oauth2.TokenSource { return w.source() }))
			t.Run("control", func(t *testing.T) {
				require.NoError(t, s.run(t, models(none)))
				for _, f := range s.flaws {
					require.Error(t, s.run(t, models(f)), "%s", f)
				}
			})
		})
	}
}

// The answers that package oauth2 asks for twice, and this package does not.
func TestOneRequestWhateverTheStyle(t *testing.T) {
	for _, test := range []struct {
		name   string
		secret string
		style  oauth2.AuthStyle // the provider's
		fail   *oauthserver.Failure
		want   int // requests; the second refresh makes one in any case
	}{
		{name: "no secret", want: 1},
		{name: "in the header", secret: "s3cret", style: oauth2.AuthStyleInHeader, want: 1},
		{name: "in the parameters", secret: "s3cret", style: oauth2.AuthStyleInParams, want: 2},
		{name: "no answer", secret: "s3cret", fail: &oauthserver.Failure{}, want: 1},
		{name: "busy", secret: "s3cret", fail: &oauthserver.Failure{Status: 429}, want: 1},
		{name: "refused", secret: "s3cret", fail: &oauthserver.Failure{Status: 400, Code: "invalid_grant"}, want: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{Secret: test.secret, AuthStyle: test.style})
			w.signedIn()
			conf := w.server.Config()
			conf.ClientSecret, conf.Endpoint.AuthStyle = test.secret, oauth2.AuthStyleAutoDetect
			s := w.sourceOf(conf)
			if test.fail != nil {
				w.server.Fail(1, *test.fail)
			}
			_, err := s.Token()
			require.Equal(t, test.fail != nil, err != nil, "%v", err)
			require.Equal(t, test.want, w.server.Refreshes())
			if test.fail == nil {
				w.advance(2 * time.Hour)
				_, err = s.Token()
				require.NoError(t, err)
				require.Equal(t, test.want+1, w.server.Refreshes(), "the style is remembered")
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		w := newWorld(t, oauthserver.Options{Secret: "s3cret"})
		conf := w.server.Config()
		conf.ClientSecret, conf.Endpoint.AuthStyle = "s3cret", oauth2.AuthStyleAutoDetect
		w.server.Fail(2, oauthserver.Failure{Status: http.StatusTooManyRequests})
		_, err := conf.TokenSource(t.Context(), &oauth2.Token{RefreshToken: strings.Repeat("x", 10)}).Token()
		require.Error(t, err)
		require.Equal(t, 2, w.server.Refreshes(), "package oauth2 by itself")
	})
}
