// Package oauthserver is a small OAuth 2.0 provider on loopback, for tests and
// for the examples: an HTTP server with real sockets, whom package
// golang.org/x/oauth2 talks to as it does to any provider.
//
// It knows the grants authorization_code with PKCE (RFC 7636), device_code (RFC
// 8628) and refresh_token. As Auth0 and Okta do, it rotates refresh tokens, and
// takes the second use of one for theft: then all that descends from that sign-in
// is revoked (RFC 9700, section 4.14.2). It is told to do otherwise by
// [Options] and by the methods of [Server].
//
// It has no passwords and no secrets: everybody who reaches its pages may sign in as
// anybody. Its tokens are worth nothing outside of it. For Microsoft Entra ID as
// MSAL knows it there is package entratest.
package oauthserver

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// Options change what a [Server] does. The zero value rotates and revokes.
type Options struct {
	// NoRotation lets a refresh token be used for ever, and leaves it out of the
	// answers to its use, as Google does.
	NoRotation bool
	// NoRevocation gives new tokens also for a refresh token that was used before.
	NoRevocation bool
	// Secret is what clients must have; "" means that they have none.
	Secret string
	// AuthStyle is how clients must say who they are, if there is a Secret; the
	// zero value lets them choose.
	AuthStyle oauth2.AuthStyle
	// Extra are further fields of each token response.
	Extra map[string]any
	// StateFile keeps the tokens (their hashes) in a file, so that a later
	// server knows them. "" means that they end with the server.
	StateFile string
}

// Server is a running provider. Its methods are safe for concurrent use.
type Server struct {
	// URL is where the server is: "http://127.0.0.1:" and a port.
	URL string

	o    Options
	http *http.Server

	mu       sync.Mutex
	state    map[string]token // by hash; unless there is a StateFile
	lifetime time.Duration
	devices  map[string]*device // by device code
	codes    map[string]code
	requests map[string]int
	reuses   int
	revoked  int
	issued   []string
	failures []Failure
	holds    []*Hold
	gather   *gathering
	closing  chan struct{}
	closed   sync.Once
}

// token is a token that was issued.
type token struct {
	Refresh bool      `json:"refresh,omitempty"` // else an access token
	Family  string    `json:"family"`            // all that descends from one sign-in
	User    string    `json:"user"`
	Spent   bool      `json:"spent,omitempty"`
	Until   time.Time `json:"until"`
}

type device struct {
	userCode, user string // user: who has approved it
	declined       bool
}

type code struct{ user, redirect, challenge string }

// Start starts a server on a port that is free.
func Start(o Options) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("oauthserver: %w", err)
	}
	s := &Server{URL: "http://" + l.Addr().String(), o: o, state: map[string]token{}, lifetime: time.Hour,
		devices: map[string]*device{}, codes: map[string]code{}, requests: map[string]int{}, closing: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /device/code", s.deviceCode)
	mux.HandleFunc("GET /device", s.showPage)
	mux.HandleFunc("POST /device", s.devicePage)
	mux.HandleFunc("GET /authorize", s.showPage)
	mux.HandleFunc("POST /authorize", s.authorize)
	mux.HandleFunc("GET /me", s.me)
	s.http = &http.Server{Handler: http.MaxBytesHandler(mux, 1<<20), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	go s.http.Serve(l) //nolint:errcheck // always an error: that of Close
	return s, nil
}

// Close stops the server at once. Requests that are held or in flight fail.
func (s *Server) Close() error {
	s.closed.Do(func() { close(s.closing) })
	return s.http.Close()
}

// Config returns a client of the server.
func (s *Server) Config() *oauth2.Config { return Config(s.URL) }

// Config returns a client of the server at that URL.
func Config(serverURL string) *oauth2.Config {
	return &oauth2.Config{ClientID: "example-client", Scopes: []string{"profile"}, Endpoint: oauth2.Endpoint{
		AuthURL: serverURL + "/authorize", DeviceAuthURL: serverURL + "/device/code", TokenURL: serverURL + "/token",
		AuthStyle: oauth2.AuthStyleInParams,
	}}
}

// SignIn returns the tokens of a new sign-in, as a grant would.
func (s *Server) SignIn(user string) (*oauth2.Token, error) {
	a, err := s.grant(rand.Text(), user, true)
	if err != nil {
		return nil, err
	}
	t := &oauth2.Token{AccessToken: a["access_token"].(string), TokenType: "Bearer", RefreshToken: a["refresh_token"].(string)}
	if in, ok := a["expires_in"].(int64); ok {
		t.Expiry = time.Now().Add(time.Duration(in) * time.Second)
	}
	return t.WithExtra(a), nil
}

// update changes the tokens that were issued, also if edit fails.
func (s *Server) update(edit func(m map[string]token) error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.StateFile == "" {
		return edit(s.state)
	}
	if err := securefile.MkdirAll(filepath.Dir(s.o.StateFile)); err != nil {
		return fmt.Errorf("oauthserver: %w", err)
	}
	lock := flock.New(s.o.StateFile+".lock", flock.SetPermissions(0o600))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("oauthserver: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	m := map[string]token{}
	b, _, err := securefile.Read(context.Background(), s.o.StateFile, 64<<20)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("oauthserver: the state in %s: %w", s.o.StateFile, err)
	}
	edited := edit(m)
	maps.DeleteFunc(m, func(_ string, t token) bool { return t.Until.Before(time.Now()) })
	if b, err = json.Marshal(m); err == nil {
		_, err = securefile.Replace(context.Background(), s.o.StateFile, b)
	}
	return errors.Join(edited, err)
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// refusal is an OAuth error response.
type refusal struct {
	status            int
	code, description string
}

func (e *refusal) Error() string { return e.code + ": " + e.description }

func refuse(code, description string) error {
	return &refusal{http.StatusBadRequest, code, description}
}

// grant issues the tokens of a response.
func (s *Server) grant(family, user string, refresh bool) (map[string]any, error) {
	access, next := "at-"+rand.Text()+rand.Text(), "rt-"+rand.Text()+rand.Text()
	a := map[string]any{}
	maps.Copy(a, s.o.Extra)
	a["access_token"], a["token_type"] = access, "Bearer"
	err := s.update(func(m map[string]token) error {
		if s.lifetime > 0 {
			a["expires_in"] = int64(s.lifetime / time.Second)
		}
		m[hash(access)] = token{Family: family, User: user, Until: time.Now().Add(max(s.lifetime, time.Hour))}
		s.issued = append(s.issued, access)
		if refresh {
			a["refresh_token"] = next
			m[hash(next)] = token{Refresh: true, Family: family, User: user, Until: time.Now().Add(90 * 24 * time.Hour)}
			s.issued = append(s.issued, next)
		}
		return nil
	})
	return a, err
}

// spend uses a refresh token.
func (s *Server) spend(secret string) (t token, err error) {
	err = s.update(func(m map[string]token) error {
		var ok bool
		if t, ok = m[hash(secret)]; !ok || !t.Refresh {
			return refuse("invalid_grant", "The refresh token is not known, or it was revoked.")
		}
		if s.o.NoRotation {
			return nil
		}
		if t.Spent {
			s.reuses++
			if !s.o.NoRevocation {
				s.revoked++
				maps.DeleteFunc(m, func(_ string, other token) bool { return other.Family == t.Family })
				return refuse("invalid_grant", "The refresh token was used before. All tokens of this sign-in have been revoked.")
			}
		}
		spent := t
		spent.Spent = true
		m[hash(secret)] = spent
		return nil
	})
	return t, err
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	grant := r.PostFormValue("grant_type")
	s.mu.Lock()
	s.requests[grant]++
	s.mu.Unlock()
	if grant == "refresh_token" {
		if f, ok := s.failure(); ok {
			f.answer(w)
			return
		}
		if !s.gathered(r.Context()) {
			panic(http.ErrAbortHandler)
		}
	}
	a, err := s.answer(r, grant)
	if grant == "refresh_token" && !s.hold(r.Context()) {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, a)
}

func (s *Server) answer(r *http.Request, grant string) (map[string]any, error) {
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	style := oauth2.AuthStyleInParams
	if basic {
		style = oauth2.AuthStyleInHeader
	}
	wrongStyle := s.o.AuthStyle != oauth2.AuthStyleAutoDetect && s.o.AuthStyle != style
	if id == "" || wrongStyle || subtle.ConstantTimeCompare([]byte(secret), []byte(s.o.Secret)) != 1 {
		return nil, &refusal{http.StatusUnauthorized, "invalid_client", "The client is not known."}
	}
	switch grant {
	case "refresh_token":
		t, err := s.spend(r.PostFormValue("refresh_token"))
		if err != nil {
			return nil, err
		}
		return s.grant(t.Family, t.User, !s.o.NoRotation)
	case "urn:ietf:params:oauth:grant-type:device_code":
		user, err := s.redeemDevice(r.PostFormValue("device_code"))
		if err != nil {
			return nil, err
		}
		return s.grant(rand.Text(), user, true)
	case "authorization_code":
		s.mu.Lock()
		c, ok := s.codes[r.PostFormValue("code")]
		delete(s.codes, r.PostFormValue("code"))
		s.mu.Unlock()
		if !ok || c.redirect != r.PostFormValue("redirect_uri") || c.challenge != hash(r.PostFormValue("code_verifier")) {
			return nil, refuse("invalid_grant", "The code is not known for this redirect URI and verifier.")
		}
		return s.grant(rand.Text(), c.user, true)
	}
	return nil, refuse("unsupported_grant_type", "The grant type is not supported.")
}

func (s *Server) deviceCode(w http.ResponseWriter, r *http.Request) {
	secret, user := rand.Text(), rand.Text()
	user = user[:4] + "-" + user[4:8]
	s.mu.Lock()
	s.devices[secret] = &device{userCode: user}
	s.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"device_code": secret, "user_code": user, "verification_uri": s.URL + "/device",
		"verification_uri_complete": s.URL + "/device?user_code=" + user, "expires_in": 900, "interval": 1})
}

func (s *Server) redeemDevice(secret string) (user string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices[secret]
	switch {
	case !ok:
		return "", refuse("expired_token", "The device code is not known.")
	case d.declined:
		return "", refuse("access_denied", "The user has declined.")
	case d.user == "":
		return "", refuse("authorization_pending", "The user has not entered the code yet.")
	}
	delete(s.devices, secret)
	return d.user, nil
}

// checkAuthorize finds what must not be answered by a redirect.
func checkAuthorize(q url.Values) error {
	to, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || to.Scheme != "http" || !net.ParseIP(to.Hostname()).IsLoopback() {
		return errors.New("the redirect URI is not on loopback, as RFC 8252, section 7.3, has it")
	}
	if q.Get("response_type") != "code" || q.Get("client_id") == "" || q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256" {
		return errors.New("a client_id, the response type code and a code challenge of the method S256 are needed")
	}
	return nil
}

func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if err := checkAuthorize(q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	back := url.Values{"state": {q.Get("state")}}
	if user := r.PostFormValue("username"); r.PostFormValue("answer") != "yes" || user == "" {
		back.Set("error", "access_denied")
	} else {
		secret := rand.Text()
		s.mu.Lock()
		s.codes[secret] = code{user, q.Get("redirect_uri"), q.Get("code_challenge")}
		s.mu.Unlock()
		back.Set("code", secret)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

// me is an API: it says whose access token it was called with.
func (s *Server) me(w http.ResponseWriter, r *http.Request) {
	secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	var t token
	var ok bool
	err := s.update(func(m map[string]token) error { t, ok = m[hash(secret)]; return nil })
	switch {
	case err != nil:
		fail(w, err)
	case !ok || t.Refresh:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		fail(w, &refusal{http.StatusUnauthorized, "invalid_token", "The access token is not known, or it was revoked."})
	default:
		reply(w, http.StatusOK, map[string]any{"user": t.User})
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b) //nolint:errcheck // the client has gone
}

func fail(w http.ResponseWriter, err error) {
	var e *refusal
	if !errors.As(err, &e) {
		e = &refusal{http.StatusInternalServerError, "server_error", err.Error()}
	}
	reply(w, e.status, map[string]any{"error": e.code, "error_description": e.description})
}

// SetLifetime sets the lifetime of the access tokens issued from now on, an hour
// at first; 0 leaves it out of the answers.
func (s *Server) SetLifetime(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lifetime = d
}

// Refreshes returns how many requests with a refresh token have come in.
func (s *Server) Refreshes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests["refresh_token"]
}

// Reuses returns how often a refresh token came that had been used before.
func (s *Server) Reuses() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reuses
}

// SignOuts returns how often all tokens of a sign-in were revoked for a reuse.
func (s *Server) SignOuts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked
}

// Issued returns every token that the server has given out.
func (s *Server) Issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

// Revoke revokes all tokens of a user, as an administrator does.
func (s *Server) Revoke(user string) error {
	return s.update(func(m map[string]token) error {
		maps.DeleteFunc(m, func(_ string, t token) bool { return t.User == user })
		return nil
	})
}

// RevokeAccess revokes an access token only.
func (s *Server) RevokeAccess(accessToken string) error {
	return s.update(func(m map[string]token) error { delete(m, hash(accessToken)); return nil })
}

// Failure is an answer instead of tokens.
type Failure struct {
	Status      int    // for example 429 or 503; 0 closes the connection without an answer
	RetryAfter  string // the header; "" sends none
	Code        string // the OAuth error
	Description string
	Body        string // instead of an OAuth error response, as HTML
}

// Fail makes the next n refreshes fail, before anything is issued or spent.
func (s *Server) Fail(n int, f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, slices.Repeat([]Failure{f}, n)...)
}

func (s *Server) failure() (f Failure, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) == 0 {
		return f, false
	}
	f, s.failures = s.failures[0], s.failures[1:]
	return f, true
}

func (f Failure) answer(w http.ResponseWriter) {
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	switch {
	case f.Status == 0:
		panic(http.ErrAbortHandler) // closes the connection
	case f.Body != "":
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Length", strconv.Itoa(len(f.Body)))
		w.WriteHeader(f.Status)
		io.WriteString(w, f.Body) //nolint:errcheck // the client has gone
	default:
		fail(w, &refusal{f.Status, f.Code, f.Description})
	}
}

// Hold is a refresh whose answer waits.
type Hold struct{ arrived, released chan struct{} }

// Hold makes the next refresh wait with its answer. It has then been served: what
// it spends is spent, and only the client does not know yet.
func (s *Server) Hold() *Hold {
	h := &Hold{make(chan struct{}), make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = append(s.holds, h)
	return h
}

// Arrived is closed when the request is being held.
func (h *Hold) Arrived() <-chan struct{} { return h.arrived }

// Release sends the answer on its way. It is called once.
func (h *Hold) Release() { close(h.released) }

// hold returns false if the client or the server has gone.
func (s *Server) hold(ctx context.Context) bool {
	s.mu.Lock()
	if len(s.holds) == 0 {
		s.mu.Unlock()
		return true
	}
	h := s.holds[0]
	s.holds = s.holds[1:]
	s.mu.Unlock()
	close(h.arrived)
	return s.wait(ctx, h.released)
}

type gathering struct {
	missing int
	all     chan struct{}
}

// Gather makes the next n refreshes wait until all of them have come in, before
// any is served: what may happen at once then does.
func (s *Server) Gather(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gather = &gathering{n, make(chan struct{})}
}

func (s *Server) gathered(ctx context.Context) bool {
	s.mu.Lock()
	g := s.gather
	if g == nil {
		s.mu.Unlock()
		return true
	}
	if g.missing--; g.missing == 0 {
		s.gather = nil
		close(g.all)
	}
	s.mu.Unlock()
	return s.wait(ctx, g.all)
}

func (s *Server) wait(ctx context.Context, until <-chan struct{}) bool {
	select {
	case <-until:
		return true
	case <-ctx.Done():
	case <-s.closing:
	}
	return false
}
