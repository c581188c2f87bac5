package tokensource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/adopt"
	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/internal/signedout"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Refresher exchanges a refresh token. *oauth2.Config implements it: the
// TokenSource for a token that has nothing but a refresh token makes one token
// request and returns the answer. A Refresher of your own should embed an
// *oauth2.Config, so that the Source knows the client: see [Source.Save]. If it refreshes
// with that, set Endpoint.AuthStyle: to find the style out, package oauth2 repeats a
// request that failed, with the same refresh token.
type Refresher interface {
	TokenSource(ctx context.Context, t *oauth2.Token) oauth2.TokenSource
}

// DefaultEarlyExpiry is how long before its expiry a token is refreshed by
// default. Package oauth2 has the same default.
const DefaultEarlyExpiry = 10 * time.Second

// Option is a setting of a [Source], for [New].
type Option func(*Source) error

// WithEarlyExpiry sets how long before its expiry a token is refreshed; the
// default is [DefaultEarlyExpiry]. A token is never refreshed in the first half
// of its life. One that has no refresh token is good until it expires. New fails
// if d is negative.
func WithEarlyExpiry(d time.Duration) Option {
	return func(s *Source) error {
		if d < 0 {
			return errors.New("the early expiry is negative")
		}
		s.early = d
		return nil
	}
}

// WithIssuer names the provider by its issuer identifier (RFC 8414; in OpenID
// Connect the "iss" of its ID tokens). What is stored is then bound to the issuer,
// and stays usable when the provider's token endpoint changes. Without it, it is
// bound to the token endpoint. New fails if the Refresher neither is nor embeds an
// *oauth2.Config.
func WithIssuer(issuer string) Option {
	return func(s *Source) error {
		if configOf(s.conf) == nil {
			return errors.New("an issuer is given, and there is no oauth2.Config that names the client")
		}
		s.issuer = issuer
		return nil
	}
}

// WithFormerEndpoints names token endpoints and issuers that the provider had
// before. A token that is bound to one of them, and to this client, is refreshed
// at the present endpoint, and bound to that from then on.
func WithFormerEndpoints(urls ...string) Option {
	return func(s *Source) error { s.former = append(s.former, urls...); return nil }
}

// WithLogger sets where the Source logs that a token could not be saved. The
// default is slog.Default() at the time of each record. No record has a secret in
// it.
func WithLogger(l *slog.Logger) Option {
	return func(s *Source) error { s.logger = l; return nil }
}

// Source is the token of one sign-in: an [oauth2.TokenSource] that keeps it in a
// [persistence.Cache] and refreshes it once for all who share that cache. It is
// safe for concurrent use. Any number of Sources may have the same key, in any
// number of processes. There is nothing to close. See the package comment.
type Source struct {
	ctx    context.Context // for Token, and for its HTTP client
	cache  *persistence.Cache
	key    string
	conf   Refresher
	issuer string
	former []string // endpoints and issuers
	early  time.Duration
	byID   bool         // the ID token is the credential
	logger *slog.Logger // nil: slog.Default()
	now    func() time.Time

	current atomic.Pointer[current] // nil: none

	mu      sync.Mutex
	flights flights[*current]
	changes int // how often Save and Delete have changed what is stored
	// The access tokens that Invalidate was given since there is no current one. A pointer,
	// because package fmt prints it as a number.
	refused *[]string
	unsaved *unsaved // what could not be saved
	pause   time.Time
	paused  error            // what to answer until pause
	style   oauth2.AuthStyle // what the provider was found to take, if conf does not say
}

var _ oauth2.TokenSource = (*Source)(nil)

// current is the token that calls return without asking anybody.
type current struct {
	token *oauth2.Token
	due   time.Time // from when on there is something to do; zero: never
}

func (c *current) unexpired(now time.Time) bool {
	return c.token.Expiry.IsZero() || now.Before(c.token.Expiry)
}

// copy: oauth2.ReuseTokenSource writes to the token that it is given.
func (c *current) copy() *oauth2.Token {
	t := *c.token
	return &t
}

// snapshot is the state of a Source that what was read is compared with.
type snapshot struct {
	changes  int
	refused  *[]string
	signOuts uint64 // of everybody, by the Cache
}

// unsaved is an entry that could not be saved.
type unsaved struct {
	entry entry
	over  entry         // what it is to replace; nil: nothing was stored
	known bool          // false: nothing could be read, so over is not known yet
	after uint64        // as in snapshot: a sign-out of everybody since then was of this entry too
	next  time.Time     // when to try again
	wait  time.Duration // and how long after that
}

// New returns the token source of one key of the cache. A key names a sign-in:
// such as "github", or "github alice" if there may be several. Each client and
// each provider needs keys of its own: see [Source.Save]. New does no I/O.
//
// ctx is for [Source.Token]: when it ends, Token fails where it would have to wait.
// Its value of [oauth2.HTTPClient] is the client for token requests, as in package
// oauth2: it can add parameters that a provider wants with a refresh (see the example
// "Parameters"). Redirects are never followed. conf is usually an *oauth2.Config with the
// provider's Endpoint. It must not be changed afterwards. A program that only calls
// [Source.Load] and [Source.Delete], to sign out under keys that [Keys] has named, may
// give an empty one.
//
// New fails, with an *persistence.Error, only if an argument or an option cannot
// be used.
func New(ctx context.Context, c *persistence.Cache, key string, conf Refresher, opts ...Option) (*Source, error) {
	s := &Source{ctx: ctx, cache: c, key: key, conf: conf, early: DefaultEarlyExpiry, now: time.Now}
	s.flights = flights[*current]{mu: &s.mu, grace: persistence.DefaultTimeout, run: s.run}
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
		return nil, s.fail("open", errors.New(missing), "Correct the arguments of tokensource.New.")
	}
	for _, o := range opts {
		if o == nil {
			continue
		}
		if err := o(s); err != nil {
			return nil, s.fail("open", err, "Correct the options of tokensource.New.")
		}
	}
	return s, nil
}

// Token is [Source.TokenContext] with the context that New was given. It
// implements [oauth2.TokenSource].
func (s *Source) Token() (*oauth2.Token, error) { return s.TokenContext(s.ctx) }

// TokenContext returns an access token: the current one while it is good, else the
// stored one if that is good, else one that it gets by a refresh. See the package
// comment for the rules. It waits no longer than ctx allows, or
// persistence.DefaultTimeout if ctx has no deadline. A refresh that has been sent
// goes on for that long after its last caller has gone, so that the answer is kept.
//
// The error is ErrSignInRequired (and ErrOtherClient where a refresh was refused
// for that), ErrTemporary, a storage error like those of Cache.Load and
// Cache.Exclusive (ErrUnavailable if the cache has no named locks), or none of
// these: then the provider has refused the request in a way that no retry
// changes, such as a wrong client secret. While the current token, or the stored
// one, has not expired, no other error than ErrSignInRequired is returned.
//
// The token is the caller's own. It has no refresh token, so that nothing else
// refreshes it: see [Source.Load].
func (s *Source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	c := s.current.Load()
	if c != nil && (c.due.IsZero() || s.now().Before(c.due)) {
		return c.copy(), nil
	}
	fresh, err := s.refreshed(ctx)
	if err == nil {
		return fresh.copy(), nil
	}
	if c = s.current.Load(); c != nil && !errors.Is(err, ErrSignInRequired) && c.unexpired(s.now()) {
		return c.copy(), nil
	}
	return nil, err
}

// Load returns the stored token as it is, good or expired, with its refresh
// token: to show who is signed in, or to revoke the token at the provider (RFC
// 7009) before Delete. Do not refresh with it: other processes do not notice what
// [oauth2.Config.TokenSource] and Config.Client do. The error is
// persistence.ErrNotFound if there is no token. A token that could not be saved
// counts as stored. What it is bound to does not matter.
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

// Save stores the token of a new sign-in, with all fields of the provider's
// response, and replaces any other of this key. If it fails, the Source uses the
// token all the same until the process ends, and later calls of Token try again to
// store it. They no longer do if another process has stored a token since, or has
// removed the one that was stored, or after SignOutAll or Delete of the Source's Cache.
// Where none was stored, or what was stored could not be read, a sign-out elsewhere
// leaves nothing to see in the store: Delete of another Source, SignOutAll of another
// Cache, and sign-outs in other processes do not reach the token then.
//
// The token is bound to the client and the provider of this Source: the ClientID of
// its oauth2.Config, and the issuer ([WithIssuer]) or else the token endpoint. A
// Source with another client or provider does not refresh it, and sends it nowhere.
// A token that an older version stored is bound when it is refreshed first. Where
// the Refresher neither is nor embeds an *oauth2.Config, tokens are not bound, and
// the Source refreshes none that is.
func (s *Source) Save(ctx context.Context, t *oauth2.Token) error {
	if t == nil || t.AccessToken == "" && t.RefreshToken == "" {
		return s.fail("save", errors.New("the token is empty"), "Call Save with the token of a sign-in.")
	}
	e := newEntry(t, s.now()).bind(s.client())
	before := s.snapshot()
	found, known, err := s.store(ctx, e, func(entry) bool { return true })
	s.mu.Lock()
	defer s.mu.Unlock()
	alone := s.changes == before.changes
	s.changes++
	s.refused, s.unsaved, s.pause = nil, nil, time.Time{}
	switch {
	case err != nil:
		s.keepUnsaved(&unsaved{entry: e, over: found, known: known, after: before.signOuts})
	case alone:
		s.set(s.currentOf(e))
	default: // another Save or a Delete: what is stored shows which came last
		s.current.Store(nil)
	}
	return err
}

// Adopt takes over the token that a program has kept elsewhere, for example in a
// file of its own. read returns it; an error that is fs.ErrNotExist says that there
// is none, and then Adopt does nothing and returns nil. The token is stored and bound
// as [Source.Save] does it, if none is stored, or if the stored one expires earlier.
// Where it is not known when one of the two expires, the stored one stays. A token that
// Save could not store counts as stored, and is stored now if it is the one that stays.
// When what is stored can be read back, remove is called. stored reports whether the
// token that read returned was stored. What [persistence.Cache.Adopt] says of kills, of
// a remove that fails and of old programs holds here too. Errors of read are returned as
// they are.
//
// If one file holds the tokens of several keys, call Adopt for each: its remove takes
// this key's token out of the file, and the last one removes the file. If remove kept
// the token there, it would come back after a sign-out.
func (s *Source) Adopt(ctx context.Context, read func(context.Context) (*oauth2.Token, error), remove func(context.Context) error) (stored bool, err error) {
	t, err := read(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if t == nil || t.AccessToken == "" && t.RefreshToken == "" {
		return false, s.fail("adopt", errors.New("the token is empty"), "Nothing was changed. Remove the old token and sign in again.")
	}
	e := newEntry(t, s.now()).bind(s.client())
	of, err := json.Marshal([]string{section, s.key, t.AccessToken, t.RefreshToken})
	if err != nil {
		return false, s.fail("adopt", errors.New("the token cannot be stored as JSON"), "")
	}
	ctx, cancel := within.Deadline(ctx, persistence.DefaultTimeout)
	defer cancel()
	var seen *unsaved // what could not be saved when the cache was changed
	adopted := false  // rather than seen, which is the newer one
	changed, err := adopt.Run(ctx, s.cache, of, func(data []byte) ([]byte, error) {
		found, err := find(data, s.key)
		if err != nil {
			return nil, s.corrupt("adopt", err)
		}
		s.mu.Lock()
		seen = s.unsaved
		counts := seen != nil && s.stands(seen, found)
		s.mu.Unlock()
		if counts {
			found = seen.entry
		}
		here := found.time(expiresOn)
		adopted = found == nil || !here.IsZero() && e.time(expiresOn).After(here)
		switch {
		case adopted:
			return replace(data, s.key, e)
		case counts:
			return replace(data, s.key, seen.entry)
		}
		return nil, nil
	}, remove)
	stored = changed && adopted
	if changed {
		s.mu.Lock()
		if s.unsaved == seen { // else a Save has failed meanwhile, and came after this
			s.unsaved = nil
		}
		if stored {
			s.changes++
			s.refused, s.pause = nil, time.Time{}
			s.current.Store(nil)
		}
		s.mu.Unlock()
	}
	var kept *adopt.RemoveError
	var own *persistence.Error
	switch {
	case err == nil:
	case errors.As(err, &kept):
		err = s.fail("adopt", err, "The token is stored. Remove the old copy by hand; the next start tries again.")
	case !errors.As(err, &own):
		err = s.fail("adopt", err, "Try again.")
	}
	return stored, err
}

// Delete removes the stored token of this key, whatever it is bound to. That is
// the local part of a sign-out. The provider still knows the token; see
// [Source.Load]. Deleting what is not there succeeds. If Delete fails, the token
// is still stored.
func (s *Source) Delete(ctx context.Context) error {
	// Before the removal: else what could not be saved might be saved right after it.
	s.mu.Lock()
	u := s.unsaved
	s.unsaved = nil
	s.mu.Unlock()
	_, _, err := s.store(ctx, nil, func(e entry) bool { return e != nil })
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.unsaved == nil {
			s.unsaved = u
		}
		return err
	}
	s.changes++
	s.refused, s.unsaved = nil, nil
	s.current.Store(nil)
	return nil
}

// Invalidate tells the Source that an API refuses t, for example with the status 401,
// although the Source has returned t and t has not expired. The next call of Token
// returns another token: the stored one if that is not t, else a refreshed one. If t is
// no longer the current token, Invalidate changes nothing.
//
// Only the AccessToken of t counts. A program that has no more than the refused request
// takes it from there, and does not ask for the current token, which may be a new one:
//
//	sent := strings.TrimPrefix(request.Header.Get("Authorization"), "Bearer ")
//	source.Invalidate(&oauth2.Token{AccessToken: sent})
func (s *Source) Invalidate(t *oauth2.Token) {
	if t == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c := s.current.Load(); {
	case c != nil && c.token.AccessToken == t.AccessToken:
		s.refused = &[]string{t.AccessToken}
		s.current.Store(nil)
	case c == nil && s.refused == nil:
		s.refused = &[]string{t.AccessToken}
	case c == nil && !slices.Contains(*s.refused, t.AccessToken): // the stored token may be any of them
		all := append(slices.Clone(*s.refused), t.AccessToken)
		s.refused = &all
	}
}

// String returns a description without secrets.
func (s *Source) String() string {
	if s == nil {
		return "tokensource.Source <nil>"
	}
	return "tokensource.Source " + quote.Text(s.key)
}

// Format writes the description for every verb.
func (s *Source) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) } //nolint:errcheck // as package fmt

// LogValue returns the description.
func (s *Source) LogValue() slog.Value { return slog.StringValue(s.String()) }

// refreshed waits for the flight that is under way, or for a new one.
func (s *Source) refreshed(ctx context.Context) (*current, error) {
	ctx, cancel := within.Deadline(ctx, persistence.DefaultTimeout)
	defer cancel()
	c, err := s.flights.do(ctx)
	if left := (*leftError)(nil); errors.As(err, &left) {
		waited := "the stored token, or another process that refreshes it"
		if left.committed {
			waited = "the provider"
		}
		return nil, s.fail("refresh", fmt.Errorf("%w: waited for %s: %w", ErrTemporary, waited, left.cause), "Nothing is lost; try again.")
	}
	return c, err
}

// run is one flight. It ends with its callers' contexts. Its own deadline is far away;
// without one, the cache would set its default, which is too short.
func (s *Source) run(ctx context.Context, f *flight[*current]) (*current, error) {
	ctx, cancel := context.WithTimeout(s.withClient(ctx), 24*time.Hour)
	defer cancel()
	for {
		before := s.snapshot()
		c, err := s.refreshOrWait(ctx, f)
		s.mu.Lock()
		// A caller that came after a change must not get what was read before it.
		stale := s.changes != before.changes || c != nil && s.isRefused(c)
		if !stale || ctx.Err() != nil || !f.attached() {
			f.detach()
			s.mu.Unlock()
			return c, err
		}
		s.mu.Unlock()
	}
}

// warn logs a failure when the flight is over, so that a logger may ask for a token.
func (s *Source) warn(f *flight[*current], msg string, err error) {
	f.later(func() {
		l := s.logger
		if l == nil {
			l = slog.Default()
		}
		l.Warn(msg, "key", s.key, "error", err.Error())
	})
}

// refreshOrWait returns a token that is good, from the store or by a refresh.
func (s *Source) refreshOrWait(ctx context.Context, f *flight[*current]) (*current, error) {
	s.saveUnsaved(ctx)
	if c, _, err := s.lookup(ctx); c != nil || err != nil {
		return c, err
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
	var c *current
	err := s.cache.Exclusive(ctx, section+" "+s.key, func(ctx context.Context) (err error) {
		c, err = s.refresh(ctx, f)
		return err
	})
	return c, err
}

// lookup returns the stored token if it is good. If it is not, but can be
// refreshed, it returns the entry.
func (s *Source) lookup(ctx context.Context) (*current, entry, error) {
	before := s.snapshot()
	e, err := s.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	now := s.snapshot()
	c := s.currentOf(e)
	if c != nil && !now.isRefused(c) && (c.due.IsZero() || s.now().Before(c.due)) {
		s.setIfUnchanged(c, before)
		return c, e, nil
	}
	if !s.repeats() {
		if e.text(refreshToken) == "" {
			return nil, nil, s.signedOut(before, e)
		}
		if err := s.checkClient(e); err != nil {
			return nil, nil, err
		}
	}
	if c != nil && c.unexpired(s.now()) {
		s.setIfUnchanged(c, before) // for the case that the refresh fails
	}
	return nil, e, nil
}

// signedOut drops the current token: nothing usable is stored any more. e is what is
// stored, or nil.
func (s *Source) signedOut(before snapshot, e entry) error {
	s.setIfUnchanged(nil, before)
	if e == nil {
		return s.fail("refresh", fmt.Errorf("%w: no token is stored", ErrSignInRequired), "Sign in.")
	}
	return s.fail("refresh", fmt.Errorf("%w: the stored token is no longer good, and has no refresh token", ErrSignInRequired), signInOnce)
}

// refresh is refreshOrWait under the lock.
func (s *Source) refresh(ctx context.Context, f *flight[*current]) (*current, error) {
	for tries := 1; ; tries++ {
		c, e, err := s.lookup(ctx)
		if c != nil || err != nil {
			return c, err
		}
		if !f.commit() {
			return nil, context.Canceled // nobody waits for it
		}
		before := s.snapshot()
		t, err := s.exchange(ctx, e.text(refreshToken))
		if err == nil && (t == nil || t.AccessToken == "") {
			err = errors.New("the answer has no access token")
		}
		// The refresh token is spent: what came of it is stored even if nobody
		// waits any more.
		ctx := context.WithoutCancel(ctx)
		if err == nil {
			c, err = s.storeRefreshed(ctx, f, e, s.next(e, t).bind(s.client()), before)
		} else {
			err = s.refusal(ctx, f, err, e, before)
		}
		if !errors.Is(err, errAgain) {
			return c, err
		}
		if tries == 3 {
			return nil, s.fail("refresh", fmt.Errorf("%w: the stored token keeps changing", ErrTemporary), "Try again later.")
		}
	}
}

// next returns the entry after a request that e was used for.
func (s *Source) next(e entry, t *oauth2.Token) entry {
	if s.repeats() { // then each answer is a new beginning
		e = newEntry(t, s.now())
		delete(e, refreshToken)
		return e
	}
	e = e.refreshed(t, s.now())
	if fresh, _ := t.Extra(idToken).(string); s.byID && fresh == "" {
		delete(e, idToken) // the old one ends
	}
	return e
}

// errAgain: another token has been stored meanwhile.
var errAgain = errors.New("another token is stored")

// storeRefreshed stores e, which the refresh token of from was exchanged for. If
// that fails, e is kept in memory.
func (s *Source) storeRefreshed(ctx context.Context, f *flight[*current], from, e entry, before snapshot) (fresh *current, failed error) {
	sent := from.text(refreshToken)
	found, stored, err := s.store(ctx, e, func(found entry) bool {
		return s.replaces(found, sent) || s.repeats() && found.sameAs(from)
	})
	c := s.currentOf(e)
	if s.byID && c == nil && (err != nil || stored) {
		defer func() {
			if failed == nil {
				failed = s.fail("refresh", errors.New("the provider's answer has no ID token that says when it expires"), "Ask for the scope openid when the user signs in.")
			}
		}()
	}
	switch {
	case err != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.changes != before.changes {
			return nil, errAgain
		}
		u := &unsaved{entry: e, over: from, known: true, after: before.signOuts}
		if stored {
			u.over = found
		} else if old := s.unsaved; old != nil && old.entry.text(refreshToken) == sent { // then from is not what is stored
			u.over, u.known = old.over, old.known
		}
		s.refused, s.pause = nil, time.Time{}
		s.keepUnsaved(u)
		s.warn(f, "tokenkeep: cannot store a refreshed token; it stays in memory and the next call tries again", err)
		return c, nil
	case stored:
		s.mu.Lock()
		defer s.mu.Unlock()
		if u := s.unsaved; u != nil && u.entry.text(refreshToken) == sent {
			s.unsaved = nil
		}
		if s.changes == before.changes {
			s.refused, s.pause = nil, time.Time{}
			s.set(c)
		}
		return c, nil
	case found == nil && !s.repeats(): // signed out meanwhile
		return nil, s.signedOut(before, nil)
	}
	return nil, errAgain // signed in anew meanwhile
}

// refusal returns the error of a failed exchange of e, and removes a refresh token
// that no longer works.
func (s *Source) refusal(ctx context.Context, f *flight[*current], err error, e entry, before snapshot) error {
	sent := e.text(refreshToken)
	secrets := []string{sent, e.text(accessToken)}
	var clientID string
	if conf := configOf(s.conf); conf != nil {
		clientID, secrets = conf.ClientID, append(secrets, conf.ClientSecret)
	}
	if s.repeats() {
		err = withoutText(err)
	}
	why := newFailure(err, s.now(), func(text string) string { return scrub(text, secrets, clientID) })
	if s.repeats() && why.class == ErrSignInRequired {
		why.class, why.remedy, why.gone = nil, checkClient, false
	}
	err = s.fail("refresh", why, why.remedy)
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
		s.warn(f, "tokenkeep: cannot remove a refresh token that no longer works", storeErr)
	case !removed && found != nil:
		return errAgain
	}
	s.mu.Lock()
	if u := s.unsaved; u != nil && u.entry.text(refreshToken) == sent {
		s.unsaved = nil
	}
	s.mu.Unlock()
	s.setIfUnchanged(nil, before)
	return err
}

// replaces reports whether what is stored is what was sent, or what that would
// have replaced if it could have been saved.
func (s *Source) replaces(found entry, sent string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.unsaved; u != nil && u.entry.text(refreshToken) == sent && s.stands(u, found) {
		return true
	}
	return found != nil && !s.repeats() && found.text(refreshToken) == sent
}

// stands is called with s.mu held. It reports whether u is still to replace found: what
// it replaces is stored, and nobody has signed out. Where nothing could be read when the
// save failed, u is to replace what is read first, unless that is newer.
func (s *Source) stands(u *unsaved, found entry) bool {
	if signedout.Everybody(s.cache) != u.after {
		return false
	}
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
	if err != nil && setAside(ctx, s.cache, s.logger, err) {
		return s.load(ctx)
	}
	if err != nil {
		return nil, s.corrupt("load", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.unsaved; u != nil && s.stands(u, e) {
		e = u.entry
	}
	return e, nil
}

// store replaces the stored entry, found, with e if replaces says so; stored reports
// whether it does. If stored is true and err is nil, e is stored. A nil e removes the
// entry.
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
	if err != nil && setAside(ctx, s.cache, s.logger, err) {
		return s.store(ctx, e, replaces)
	}
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
		return s.unsaved == u && !saved(found) && s.stands(u, found)
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
		s.current.Store(nil) // another sign-in is stored, or none
	}
}

// keepUnsaved and set are called with s.mu held.

// keepUnsaved makes current what could not be saved.
func (s *Source) keepUnsaved(u *unsaved) {
	u.next = s.now() // the next call tries again
	s.unsaved = u
	s.set(s.currentOf(u.entry))
}

// set makes c the current token; nil stands for no token.
func (s *Source) set(c *current) {
	if u := s.unsaved; u != nil && c != nil && (c.due.IsZero() || u.next.Before(c.due)) {
		c = &current{c.token, u.next}
	}
	s.current.Store(c)
}

// currentOf returns what the entry is as the current token, or nil if it has no
// access token or, with WithIDToken, no ID token.
func (s *Source) currentOf(e entry) *current {
	if e.text(accessToken) == "" {
		return nil
	}
	early := s.early
	if e.text(refreshToken) == "" && !s.repeats() {
		early = 0
	}
	if s.byID {
		return e.currentID(early)
	}
	return &current{token: e.token(false), due: e.due(early)}
}

func (s *Source) snapshot() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot{s.changes, s.refused, signedout.Everybody(s.cache)}
}

// isRefused is called with s.mu held.
func (s *Source) isRefused(c *current) bool { return snapshot{refused: s.refused}.isRefused(c) }

// isRefused reports whether Invalidate was given c's token.
func (n snapshot) isRefused(c *current) bool {
	return n.refused != nil && slices.Contains(*n.refused, c.token.AccessToken)
}

// setIfUnchanged makes c the current token, unless Save or Delete has run since
// before was taken, or Invalidate was given c's token.
func (s *Source) setIfUnchanged(c *current, before snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == before.changes && (c == nil || !s.isRefused(c)) {
		s.set(c)
	}
}
