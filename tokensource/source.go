package tokensource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Refresher exchanges a refresh token: the TokenSource for a token that has
// nothing but a refresh token makes one token request and returns the answer.
// An *oauth2.Config is one.
type Refresher interface {
	TokenSource(ctx context.Context, t *oauth2.Token) oauth2.TokenSource
}

// DefaultEarlyExpiry is how long before its expiry a token is refreshed. It is
// what package oauth2 does too.
const DefaultEarlyExpiry = 10 * time.Second

// Option is a setting of a [Source], for [New].
type Option func(*Source) error

// WithEarlyExpiry sets how long before its expiry a token is refreshed, in place
// of [DefaultEarlyExpiry]. A token is never refreshed in the first half of its
// life. One that has no refresh token is good until it expires.
func WithEarlyExpiry(d time.Duration) Option {
	return func(s *Source) error {
		if d < 0 {
			return errors.New("the early expiry is negative")
		}
		s.early = d
		return nil
	}
}

// WithLogger sets where it is logged that a token could not be saved. The
// default is slog.Default(), asked at each record. No record holds a secret.
func WithLogger(l *slog.Logger) Option {
	return func(s *Source) error { s.logger = l; return nil }
}

// Source is the token of one sign-in: an [oauth2.TokenSource] that keeps it in a
// [persistence.Cache] and refreshes it once for all who share that cache. It is
// safe for concurrent use, and so are any number of Sources of one key, in any
// number of processes. There is nothing to close. See the package comment.
type Source struct {
	ctx    context.Context // for Token, and for its HTTP client
	cache  *persistence.Cache
	key    string
	conf   Refresher
	early  time.Duration
	logger *slog.Logger // nil: slog.Default()
	now    func() time.Time

	hand atomic.Pointer[hand] // the token in hand, or nil

	mu      sync.Mutex
	flight  *flight
	changed int      // how often Save and Delete have changed what is stored
	refused string   // the access token that Invalidate was given
	unsaved *unsaved // what could not be saved
	pause   time.Time
	paused  error            // what to answer until pause
	style   oauth2.AuthStyle // what the provider was found to take, if conf does not say
}

var _ oauth2.TokenSource = (*Source)(nil)

// hand is a token in hand.
type hand struct {
	token *oauth2.Token
	due   time.Time // from when on there is something to do; zero: never
}

func (h *hand) unexpired(now time.Time) bool {
	return h.token.Expiry.IsZero() || now.Before(h.token.Expiry)
}

// unsaved is an entry that could not be saved.
type unsaved struct {
	entry entry
	over  entry         // what it is to replace; nil: nothing was stored
	known bool          // false: nothing could be read, so over is not known yet
	next  time.Time     // when to try again
	wait  time.Duration // and how long after that
}

// New returns the token source of one key of the cache. A key names a sign-in:
// such as "github", or "github alice" if there may be several. Programs that
// share a cache must use a key for one client and provider only. New does no I/O.
//
// ctx is what package oauth2 takes one for: its value of [oauth2.HTTPClient] is
// the client for token requests. When it ends, Token fails where it would have
// to wait. conf is usually an *oauth2.Config with the provider's Endpoint.
func New(ctx context.Context, c *persistence.Cache, key string, conf Refresher, opts ...Option) (*Source, error) {
	s := &Source{ctx: ctx, cache: c, key: key, conf: conf, early: DefaultEarlyExpiry, now: time.Now}
	var missing string
	switch config, ok := conf.(*oauth2.Config); {
	case ctx == nil:
		missing = "the context is nil"
	case c == nil:
		missing = "the cache is nil"
	case key == "":
		missing = "the key is empty"
	case !utf8.ValidString(key):
		missing = "the key is not UTF-8, so that JSON cannot hold it"
	case conf == nil, ok && config == nil:
		missing = "the oauth2.Config is nil"
	}
	if missing != "" {
		return nil, s.fail("open", errors.New(missing), "Correct what New was given.")
	}
	for _, o := range opts {
		if o == nil {
			continue
		}
		if err := o(s); err != nil {
			return nil, s.fail("open", err, "Correct the option that New was given.")
		}
	}
	return s, nil
}

// Token is [Source.TokenContext] with the context that New was given. It
// implements [oauth2.TokenSource].
func (s *Source) Token() (*oauth2.Token, error) { return s.TokenContext(s.ctx) }

// TokenContext returns an access token: the one in hand while it is good, else
// the stored one if that is, else one that it gets by a refresh. See the package
// comment for the rules. It waits no longer than ctx, or
// persistence.DefaultTimeout if ctx has no deadline. A refresh that has been sent
// goes on for that time though its callers have gone, so that its answer is kept.
//
// The error is ErrSignInRequired, ErrTemporary, a storage error as that of
// Cache.Load and Cache.Exclusive (ErrUnavailable if the cache has no named
// locks), or, if it is none of these, a refusal that no retry mends, such as of
// a wrong client secret. While the token in hand, or the stored one, has not
// expired, only ErrSignInRequired is returned; everything else can wait.
//
// The token is the caller's own. It has no refresh token, so that nothing else
// refreshes it: see [Source.Load].
func (s *Source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	h := s.hand.Load()
	if h != nil && (h.due.IsZero() || s.now().Before(h.due)) {
		return h.copy(), nil
	}
	fresh, err := s.join(ctx)
	if err == nil {
		return fresh.copy(), nil
	}
	if h = s.hand.Load(); h != nil && !errors.Is(err, ErrSignInRequired) && h.unexpired(s.now()) {
		return h.copy(), nil
	}
	return nil, err
}

// copy: oauth2.ReuseTokenSource writes to the token that it is given.
func (h *hand) copy() *oauth2.Token {
	t := *h.token
	return &t
}

// Load returns the stored token as it is, good or expired, with its refresh
// token: to show who is signed in, or to revoke it at the provider (RFC 7009)
// before Delete. Do not refresh with it: [oauth2.Config.TokenSource] and
// Config.Client do so behind the back of the other processes. The error is
// persistence.ErrNotFound if there is none. A token that could not be saved
// counts as stored.
func (s *Source) Load(ctx context.Context) (*oauth2.Token, error) {
	e, err := s.load(ctx)
	if err == nil && e == nil {
		err = s.fail("load", persistence.ErrNotFound, signIn)
	}
	if err != nil {
		return nil, err
	}
	return e.token(true), nil
}

// Save stores the token of a new sign-in in the place of any other, with all
// fields of the provider's response. If it fails, the token is in the Source all
// the same until the process ends, and later calls of Token try again to store
// it, unless another process has stored a token or signed out since: that counts.
func (s *Source) Save(ctx context.Context, t *oauth2.Token) error {
	if t == nil || t.AccessToken == "" && t.RefreshToken == "" {
		return s.fail("save", errors.New("the token is empty"), "Pass Save the token of a sign-in.")
	}
	e := newEntry(t, s.now())
	before := s.changes()
	found, known, err := s.store(ctx, e, func(entry) bool { return true })
	s.mu.Lock()
	defer s.mu.Unlock()
	alone := s.changed == before
	s.changed++
	s.refused, s.unsaved, s.pause = "", nil, time.Time{}
	switch {
	case err != nil:
		s.keepUnsaved(&unsaved{entry: e, over: found, known: known})
	case alone:
		s.hold(s.handOf(e))
	default: // another Save or a Delete: the store tells which was the last
		s.hand.Store(nil)
	}
	return err
}

// Delete removes the stored token: the part of a sign-out that can be done here.
// The provider still knows it; see [Source.Load]. Deleting what is not there
// succeeds. If it fails, the token is still stored.
func (s *Source) Delete(ctx context.Context) error {
	_, _, err := s.store(ctx, nil, func(e entry) bool { return e != nil })
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed++
	s.refused, s.unsaved = "", nil
	s.hand.Store(nil)
	return nil
}

// Invalidate says that t, of this Source, is refused though it has not expired,
// as an API does by the status 401. The next call of Token returns another one:
// the stored one if it is another, else a refreshed one. A t that is not in hand
// any more changes nothing.
func (s *Source) Invalidate(t *oauth2.Token) {
	if t == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hand.Load(); h != nil && h.token.AccessToken != t.AccessToken {
		return
	}
	s.refused = t.AccessToken
	s.hand.Store(nil)
}

// A flight is one refresh, for all callers in this process. It runs in a
// goroutine of its own: once the refresh token is sent it is spent, and then the
// answer must be kept whoever still waits for it.
type flight struct {
	done   chan struct{}
	hand   *hand
	err    error
	cancel context.CancelFunc

	warnings []func() // what is to be logged in the end

	// Guarded by Source.mu.
	callers int
	sent    bool
	linger  *time.Timer // ends a flight that nobody waits for
}

// join waits for the flight that is under way, or a new one.
func (s *Source) join(ctx context.Context) (*hand, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	s.mu.Lock()
	f := s.flight
	if f == nil {
		work := context.WithoutCancel(ctx)
		if _, ok := work.Value(oauth2.HTTPClient).(*http.Client); !ok {
			work = context.WithValue(work, oauth2.HTTPClient, s.ctx.Value(oauth2.HTTPClient))
		}
		f = &flight{done: make(chan struct{})}
		// The callers' contexts bound the flight, and not the cache's default.
		work, f.cancel = context.WithTimeout(work, 24*time.Hour)
		s.flight = f
		go s.fly(work, f)
	}
	f.callers++
	if f.linger != nil {
		f.linger.Stop()
	}
	s.mu.Unlock()

	select {
	case <-f.done:
		return f.hand, f.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.callers--
	waited := "the stored token, or another process that refreshes it"
	switch {
	case f.sent:
		waited = "the provider"
		if f.callers == 0 {
			f.linger = time.AfterFunc(persistence.DefaultTimeout, f.cancel)
		}
	case f.callers == 0:
		s.land(f)
		f.cancel()
	}
	return nil, s.fail("refresh", fmt.Errorf("%w: waited for %s: %w", ErrTemporary, waited, ctx.Err()), "Nothing is lost; try again.")
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, persistence.DefaultTimeout)
}

func (s *Source) fly(ctx context.Context, f *flight) {
	for under := true; under; {
		before := s.changes()
		f.hand, f.err = s.renew(ctx, f)
		s.mu.Lock()
		// What was read before a change is no answer for those who came after it.
		stale := s.changed != before || f.hand != nil && f.hand.token.AccessToken == s.refused
		if under = stale && ctx.Err() == nil && s.flight == f; !under {
			s.land(f)
			if f.linger != nil {
				f.linger.Stop()
			}
		}
		s.mu.Unlock()
	}
	f.cancel()
	// Only now, that a logger may ask for a token.
	for _, warn := range f.warnings {
		warn()
	}
	close(f.done)
}

// warn has a failure logged when the flight is over.
func (f *flight) warn(s *Source, msg string, err error) {
	f.warnings = append(f.warnings, func() {
		l := s.logger
		if l == nil {
			l = slog.Default()
		}
		l.Warn(msg, "key", s.key, "error", err.Error())
	})
}

// land makes way for the next flight.
func (s *Source) land(f *flight) {
	if s.flight == f {
		s.flight = nil
	}
}

// renew returns a token that is good, from the store or by a refresh.
func (s *Source) renew(ctx context.Context, f *flight) (*hand, error) {
	s.saveUnsaved(ctx)
	if h, _, err := s.look(ctx); h != nil || err != nil {
		return h, err
	}
	s.mu.Lock()
	paused := s.paused
	if !s.now().Before(s.pause) {
		paused = nil
	}
	s.mu.Unlock()
	if paused != nil {
		return nil, paused
	}
	var h *hand
	err := s.cache.Exclusive(ctx, section+" "+s.key, func(ctx context.Context) (err error) {
		h, err = s.refresh(ctx, f)
		return err
	})
	return h, err
}

// look returns the stored token if it is good. If it is not, but can be
// refreshed, it returns the entry.
func (s *Source) look(ctx context.Context) (*hand, entry, error) {
	before := s.changes()
	e, err := s.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	refused := s.refused
	s.mu.Unlock()
	h := s.handOf(e)
	if h != nil && h.token.AccessToken != refused && (h.due.IsZero() || s.now().Before(h.due)) {
		s.take(h, before)
		return h, e, nil
	}
	if e.text(refreshToken) == "" {
		return nil, nil, s.gone(before)
	}
	if h != nil && h.unexpired(s.now()) {
		s.take(h, before) // for the case that the refresh fails
	}
	return nil, e, nil
}

// gone forgets the token in hand: there is nothing behind it any more.
func (s *Source) gone(before int) error {
	s.take(nil, before)
	return s.fail("refresh", ErrSignInRequired, signIn)
}

// refresh is renew under the lock.
func (s *Source) refresh(ctx context.Context, f *flight) (*hand, error) {
	for tries := 1; ; tries++ {
		h, e, err := s.look(ctx)
		if h != nil || err != nil {
			return h, err
		}
		s.mu.Lock()
		f.sent = f.callers > 0
		sent := f.sent
		if !sent {
			s.land(f) // so that nobody comes yet
		}
		s.mu.Unlock()
		if !sent {
			return nil, context.Canceled // nobody waits for it
		}
		token := e.text(refreshToken)
		before := s.changes()
		t, err := s.exchange(ctx, token)
		if err == nil && (t == nil || t.AccessToken == "") {
			err = errors.New("the answer has no access token")
		}
		// What is spent is spent: its outcome is stored whoever still waits.
		ctx := context.WithoutCancel(ctx)
		if err == nil {
			h, err = s.keep(ctx, f, e, e.refreshed(t, s.now()), before)
		} else {
			err = s.refusal(ctx, f, err, e, before)
		}
		if !errors.Is(err, errAgain) {
			return h, err
		}
		if tries == 3 {
			return nil, s.fail("refresh", fmt.Errorf("%w: the stored token keeps changing", ErrTemporary), "Try again later.")
		}
	}
}

// errAgain: another token has been stored meanwhile.
var errAgain = errors.New("another token is stored")

// exchange makes one token request.
func (s *Source) exchange(ctx context.Context, token string) (*oauth2.Token, error) {
	conf, ok := s.conf.(*oauth2.Config)
	if !ok || conf.Endpoint.AuthStyle != oauth2.AuthStyleAutoDetect {
		return s.conf.TokenSource(ctx, &oauth2.Token{RefreshToken: token}).Token()
	}
	// To detect the style, package oauth2 sends a request that failed once more,
	// whatever it failed for, and so spends a refresh token twice. A second
	// request is safe only where the first was refused for its style.
	s.mu.Lock()
	known := s.style
	s.mu.Unlock()
	styles := []oauth2.AuthStyle{known}
	if conf.ClientSecret == "" {
		styles[0] = oauth2.AuthStyleInParams // RFC 6749, section 3.2.1
	} else if known == oauth2.AuthStyleAutoDetect {
		styles = []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams}
	}
	for i, style := range styles {
		c := *conf
		c.Endpoint.AuthStyle = style
		t, err := c.TokenSource(ctx, &oauth2.Token{RefreshToken: token}).Token()
		if err != nil && i+1 < len(styles) && refusesClient(err) {
			continue
		}
		if err == nil {
			s.mu.Lock()
			s.style = style
			s.mu.Unlock()
		}
		return t, err
	}
	panic("not reached")
}

// refusesClient reports whether a request was refused for how it names the client.
func refusesClient(err error) bool {
	var refused *oauth2.RetrieveError
	ok := errors.As(err, &refused)
	if !ok || refused.Response == nil {
		return false
	}
	switch refused.ErrorCode {
	case "invalid_client", "invalid_request", "unauthorized_client", "incorrect_client_credentials":
		return refused.Response.StatusCode < 500
	case "":
		return refused.Response.StatusCode == http.StatusUnauthorized
	}
	return false
}

// keep stores e, which the refresh token of from was exchanged for. If it cannot
// be stored it is kept in memory.
func (s *Source) keep(ctx context.Context, f *flight, from, e entry, before int) (*hand, error) {
	sent := from.text(refreshToken)
	found, stored, err := s.store(ctx, e, func(found entry) bool { return s.replaces(found, sent) })
	h := s.handOf(e)
	switch {
	case err != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.changed != before {
			return nil, errAgain
		}
		u := &unsaved{entry: e, over: from, known: true}
		if stored {
			u.over = found
		} else if old := s.unsaved; old != nil && old.entry.text(refreshToken) == sent { // then from is not what is stored
			u.over, u.known = old.over, old.known
		}
		s.refused, s.pause = "", time.Time{}
		s.keepUnsaved(u)
		f.warn(s, "tokenkeep: cannot store a refreshed token; it stays in memory and the next call tries again", err)
		return h, nil
	case stored:
		s.mu.Lock()
		defer s.mu.Unlock()
		if u := s.unsaved; u != nil && u.entry.text(refreshToken) == sent {
			s.unsaved = nil
		}
		if s.changed == before {
			s.refused, s.pause = "", time.Time{}
			s.hold(h)
		}
		return h, nil
	case found == nil: // signed out meanwhile
		return nil, s.gone(before)
	}
	return nil, errAgain // signed in anew meanwhile
}

// refusal decides what is left after an exchange of e failed.
func (s *Source) refusal(ctx context.Context, f *flight, err error, e entry, before int) error {
	sent := e.text(refreshToken)
	secrets := []string{sent, e.text(accessToken)}
	if conf, ok := s.conf.(*oauth2.Config); ok {
		secrets = append(secrets, conf.ClientSecret)
	}
	why := newFailure(err, s.now(), secrets...)
	err = s.failed(why)
	if why.class == ErrTemporary && why.after > 0 {
		s.mu.Lock()
		s.pause, s.paused = s.now().Add(why.after), err
		s.mu.Unlock()
	}
	if !why.gone {
		return err
	}
	found, removed, storeErr := s.store(ctx, nil, func(found entry) bool { return found != nil && s.replaces(found, sent) })
	switch {
	case storeErr != nil:
		f.warn(s, "tokenkeep: cannot remove a refresh token that is good for nothing", storeErr)
	case !removed && found != nil:
		return errAgain
	}
	s.mu.Lock()
	if u := s.unsaved; u != nil && u.entry.text(refreshToken) == sent {
		s.unsaved = nil
	}
	s.mu.Unlock()
	s.take(nil, before)
	return err
}

// replaces reports whether what is stored is what was sent, or what that would
// have replaced if it could have been saved.
func (s *Source) replaces(found entry, sent string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.unsaved; u != nil && u.entry.text(refreshToken) == sent && u.replaces(found) {
		return true
	}
	return found != nil && found.text(refreshToken) == sent
}

// replaces is called with Source.mu held. Where nothing could be read when the
// save failed, u is to replace what is read first, unless that is newer.
func (u *unsaved) replaces(found entry) bool {
	if !u.known && !found.time(cachedAt).After(u.entry.time(cachedAt)) {
		u.over, u.known = found, true
	}
	return u.known && found.sameAs(u.over)
}

// load returns what is stored, or what is to replace it.
func (s *Source) load(ctx context.Context) (entry, error) {
	data, err := s.cache.Load(ctx)
	if err != nil && !errors.Is(err, persistence.ErrNotFound) {
		return nil, err
	}
	e, err := find(data, s.key)
	if err != nil {
		return nil, s.corrupt("load", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.unsaved; u != nil && u.replaces(e) {
		e = u.entry
	}
	return e, nil
}

// store stores e in the place of what it finds, if that is the one to replace,
// and reports whether that is so: then, without an error, it is done. A nil e
// removes the entry.
func (s *Source) store(ctx context.Context, e entry, replaces func(found entry) bool) (found entry, stored bool, err error) {
	err = s.cache.Update(ctx, func(data []byte) ([]byte, error) {
		var err error
		stored = false
		if found, err = find(data, s.key); err != nil {
			return nil, s.corrupt("save", err)
		}
		if stored = replaces(found); !stored {
			return nil, nil
		}
		return replace(data, s.key, e)
	})
	return found, stored, err
}

func (s *Source) corrupt(op string, err error) error {
	return s.fail(op, fmt.Errorf("%w: %w", persistence.ErrCorrupt, err), "Move the stored data away and sign in again.")
}

// saveUnsaved tries again, if it is time, to save what could not be saved.
func (s *Source) saveUnsaved(ctx context.Context) {
	s.mu.Lock()
	u := s.unsaved
	s.mu.Unlock()
	if u == nil || s.now().Before(u.next) {
		return
	}
	// A save whose outcome was not known may have succeeded.
	saved := func(found entry) bool {
		return found.sameAs(u.entry) && found.text(accessToken) == u.entry.text(accessToken)
	}
	found, stored, err := s.store(ctx, u.entry, func(found entry) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !saved(found) && u.replaces(found)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsaved != u {
		return
	}
	if err != nil {
		u.wait = min(max(2*u.wait, time.Second), time.Minute)
		u.next = s.now().Add(u.wait)
		return
	}
	s.unsaved = nil
	if !stored && !saved(found) {
		s.hand.Store(nil) // another sign-in is stored, or none
	}
}

// keepUnsaved and hold are called with s.mu held.

// keepUnsaved takes what could not be saved in hand.
func (s *Source) keepUnsaved(u *unsaved) {
	u.next = s.now() // the next call tries again
	s.unsaved = u
	s.hold(s.handOf(u.entry))
}

// hold takes h in hand, or nothing if h is nil.
func (s *Source) hold(h *hand) {
	if u := s.unsaved; u != nil && h != nil && (h.due.IsZero() || u.next.Before(h.due)) {
		h = &hand{h.token, u.next}
	}
	s.hand.Store(h)
}

// handOf returns the entry as a token in hand, or nil if it has no access token.
func (s *Source) handOf(e entry) *hand {
	if e.text(accessToken) == "" {
		return nil
	}
	early := s.early
	if e.text(refreshToken) == "" {
		early = 0
	}
	return &hand{token: e.token(false), due: e.due(early)}
}

func (s *Source) changes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// take is hold for what was read when there had been so many changes. What is
// older than the last change, or was refused, is not taken.
func (s *Source) take(h *hand, before int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == before && (h == nil || h.token.AccessToken != s.refused) {
		s.hold(h)
	}
}
