package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/alexedwards/scs/v2"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// app is the web app.
type app struct {
	url       string // where browsers reach it
	store     string // what keeps the accounts, for a person
	accounts  *persistence.Partitioned
	sessions  *scs.SessionManager
	demo      bool
	api       string
	clientID  string
	authority string
	scopes    []string

	credential confidential.Credential
	http       *http.Client
	toBrowser  func(authURL string) string // nil: the URL as it is
}

// client makes an MSAL client. Every request has its own: a client's memory
// holds one user.
func (a *app) client() (confidential.Client, error) {
	return confidential.New(a.authority, a.clientID, a.credential,
		confidential.WithCache(a.accounts),
		confidential.WithHTTPClient(a.http),
		confidential.WithInstanceDiscovery(false)) // the authority is known; else each client would ask for its names
}

// What a session has.
const (
	keyAccount = "account" // the home account ID
	keyName    = "name"
)

// messages are what a redirect to the home page may say. They are named in the
// query, so that a stranger makes no session by being told something.
var messages = map[string]string{
	"declined":   "You were not signed in.",
	"failed":     "The sign-in did not work. Please try again.",
	"foreign":    "That sign-in was not begun here, or was done already. Please begin again.",
	"signed-out": "You are signed out.",
}

func say(w http.ResponseWriter, r *http.Request, message string) {
	http.Redirect(w, r, "/?message="+message, http.StatusSeeOther)
}

func (a *app) routes(mux *http.ServeMux) {
	pages := http.NewServeMux()
	pages.HandleFunc("GET /{$}", a.home)
	pages.HandleFunc("GET /sign-in", a.signIn)
	pages.HandleFunc("GET /signed-in", a.signedIn)
	pages.HandleFunc("POST /sign-out", a.signOut)
	a.sessions.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) {
		a.trouble(w, "Your session cannot be read or stored just now. Please try again in a moment.", err)
	}
	mux.Handle("/", http.NewCrossOriginProtection().Handler(secure(a.sessions.LoadAndSave(http.MaxBytesHandler(pages, 1<<16)))))
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Write(style) //nolint:errcheck // the browser has gone
	})
}

// secure sets the headers of every page.
func secure(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for k, v := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "no-referrer", // the URL that the authority sends the browser back to has a code in it
			"Cache-Control":           "no-store",
		} {
			w.Header().Set(k, v)
		}
		h.ServeHTTP(w, r)
	})
}

// home shows who is signed in, and what the API says to a token that was got
// without asking.
func (a *app) home(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	id := a.sessions.GetString(ctx, keyAccount)
	p := page{Store: a.store, Demo: a.demo}
	if message := r.URL.Query().Get("message"); id == "" || message != "signed-out" {
		p.Message = messages[message]
	}
	if id == "" {
		p.show(w, http.StatusOK)
		return
	}
	token, err := a.token(ctx, id)
	if mustSignIn(err) {
		slog.Info("a user must sign in again", "error", err)
		a.sessions.Remove(ctx, keyAccount)
		p.Message = "Please sign in again."
		p.show(w, http.StatusOK)
		return
	}
	if err != nil {
		// The store, the authority or the network: it passes, and the user stays
		// signed in.
		a.trouble(w, "Your sign-in cannot be checked just now. It is not lost; please try again in a moment.", err)
		return
	}
	p.Name = a.sessions.GetString(ctx, keyName)
	p.Username = token.Account.PreferredUsername
	p.Renewed = token.Metadata.TokenSource == confidential.TokenSourceIdentityProvider
	p.Expires = token.ExpiresOn
	p.API = a.api
	if p.Answer, err = a.call(ctx, token.AccessToken); err != nil {
		slog.Warn("the API did not answer", "error", err)
		p.Message = "The API did not answer as it should. Your sign-in is not affected."
	}
	p.show(w, http.StatusOK)
}

// errSignIn is in an error that only a sign-in helps against.
var errSignIn = errors.New("nothing is stored that could be used")

// mustSignIn reports whether only a new sign-in helps: nothing is stored, or the
// authority takes the refresh token no more (RFC 6749, section 5.2, and OpenID
// Connect Core 1.0, section 3.1.2.6). Everything else passes. It must not cost a
// user the sign-in: a busy authority, a lost connection, a store that is down.
func mustSignIn(err error) bool {
	if errors.Is(err, errSignIn) {
		return true
	}
	switch oauthError(err) {
	case "invalid_grant", "interaction_required", "login_required", "consent_required":
		return true
	}
	return false
}

// oauthError returns the code of the OAuth error with which the authority
// answered, or "".
func oauthError(err error) string {
	var answered msal.CallErr
	if !errors.As(err, &answered) || answered.Resp == nil || answered.Resp.StatusCode != http.StatusBadRequest && answered.Resp.StatusCode != http.StatusUnauthorized {
		return ""
	}
	body, err := io.ReadAll(answered.Resp.Body) // MSAL has read it, and put it back
	if err != nil {
		return ""
	}
	answered.Resp.Body = io.NopCloser(bytes.NewReader(body))
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return ""
	}
	return answer.Error
}

// token returns a valid access token of the account: the stored one or, where
// that ends soon, a new one.
func (a *app) token(ctx context.Context, id string) (token confidential.AuthResult, err error) {
	// Another server may refresh at this moment. Where refresh tokens are for one
	// use, the authority then refuses ours, and the store has or will soon have
	// the new one.
	for _, pause := range []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 0} {
		// One request of the account refreshes, and the others find its token.
		err = a.accounts.Exclusive(ctx, id, func(ctx context.Context) (err error) {
			token, err = a.tokenOnce(ctx, id)
			return err
		})
		if oauthError(err) != "invalid_grant" || pause == 0 {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return token, ctx.Err()
		}
	}
	return token, err
}

func (a *app) tokenOnce(ctx context.Context, id string) (confidential.AuthResult, error) {
	c, err := a.client()
	if err != nil {
		return confidential.AuthResult{}, err
	}
	account, err := c.Account(ctx, id)
	if err == nil && account.HomeAccountID == "" {
		return confidential.AuthResult{}, fmt.Errorf("%w for the account", errSignIn)
	}
	if errors.Is(err, persistence.ErrCorrupt) {
		// It will not get better, and would be in the way of the next sign-in. A
		// key that is missing may come: keys roll from server to server.
		slog.Error("what is stored for an account is damaged and is removed", "error", err)
		if err := a.accounts.SignOut(ctx, id); err != nil {
			return confidential.AuthResult{}, err
		}
		return confidential.AuthResult{}, fmt.Errorf("%w: it was damaged", errSignIn)
	}
	if err != nil {
		return confidential.AuthResult{}, err
	}
	token, err := c.AcquireTokenSilent(ctx, a.scopes, confidential.WithSilentAccount(account))
	if err != nil && err.Error() == "no token found" { // MSAL has no type for it
		err = fmt.Errorf("%w: %w", errSignIn, err)
	}
	return token, err
}

// call asks the API who the user is.
func (a *app) call(ctx context.Context, accessToken string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.api, nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+accessToken)
	res, err := a.http.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer any
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<16)).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s", a.api, res.Status)
	}
	b, err := json.MarshalIndent(answer, "", "  ")
	return string(b), err
}

// begun is the cookie of a sign-in that is under way: its name has the state, its
// value the verifier. A session for it would let strangers fill the store, and a
// single cookie would let a second tab spoil the sign-in of the first.
func (a *app) begun(state string) *http.Cookie {
	c := a.sessions.Cookie
	return &http.Cookie{Name: c.Name + "-" + state, Path: "/", Secure: c.Secure, HttpOnly: true, SameSite: c.SameSite}
}

// beginLifetime is how long a person may take to sign in.
const beginLifetime = 10 * time.Minute

// signIn sends the browser to the authority.
func (a *app) signIn(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	c, err := a.client()
	var to string
	if err == nil {
		to, err = c.AuthCodeURL(ctx, a.clientID, a.redirect(), a.scopes)
	}
	if err != nil {
		a.trouble(w, "The sign-in page cannot be reached just now. Please try again in a moment.", err)
		return
	}
	// State ties the answer to this browser (RFC 9700, section 4.7), the
	// challenge ties the code to it as well (RFC 7636).
	state, verifier := rand.Text(), rand.Text()+rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	u, err := url.Parse(to)
	if err != nil {
		a.trouble(w, "The sign-in page cannot be reached just now.", err)
		return
	}
	q := u.Query()
	q.Set("state", state)
	q.Set("code_challenge", base64.RawURLEncoding.EncodeToString(challenge[:]))
	q.Set("code_challenge_method", "S256")
	u.RawQuery = q.Encode()
	to = u.String()
	if a.toBrowser != nil {
		to = a.toBrowser(to)
	}
	begun := a.begun(state)
	begun.Value, begun.MaxAge = verifier, int(beginLifetime/time.Second)
	http.SetCookie(w, begun)
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (a *app) redirect() string { return a.url + "/signed-in" }

// signedIn is where the authority sends the browser back to.
func (a *app) signedIn(w http.ResponseWriter, r *http.Request) {
	ctx, q := r.Context(), r.URL.Query()
	begun := a.begun(q.Get("state"))
	had, err := r.Cookie(begun.Name)
	if q.Get("state") == "" || err != nil {
		say(w, r, "foreign")
		return
	}
	begun.MaxAge = -1
	http.SetCookie(w, begun) // an answer is for one use
	if q.Get("error") != "" || q.Get("code") == "" {
		slog.Info("a sign-in was not completed", "error", q.Get("error"))
		say(w, r, "declined")
		return
	}
	c, err := a.client()
	var token confidential.AuthResult
	if err == nil {
		// The code is good once: a store that cannot be read must not cost it.
		token, err = c.AcquireTokenByAuthCode(persistence.SigningIn(ctx), q.Get("code"), a.redirect(), a.scopes, confidential.WithChallenge(had.Value))
	}
	if err == nil {
		err = a.sessions.RenewToken(ctx) // somebody who knew the session before must not have the signed-in one
	}
	if err != nil {
		slog.Warn("a sign-in failed", "error", err)
		say(w, r, "failed")
		return
	}
	name := token.IDToken.Name
	if name == "" {
		name = token.Account.PreferredUsername
	}
	a.sessions.Put(ctx, keyAccount, token.Account.HomeAccountID)
	a.sessions.Put(ctx, keyName, name)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// signOut removes the account's tokens, then the session.
func (a *app) signOut(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if id := a.sessions.GetString(ctx, keyAccount); id != "" {
		if err := a.accounts.SignOut(ctx, id); err != nil {
			a.trouble(w, "You are still signed in: your tokens cannot be removed just now. Please try again in a moment.", err)
			return
		}
	}
	if err := a.sessions.Destroy(ctx); err != nil {
		a.trouble(w, "Your session cannot be ended just now. Please try again in a moment.", err)
		return
	}
	say(w, r, "signed-out")
}

// trouble is what the user cannot help.
func (a *app) trouble(w http.ResponseWriter, message string, err error) {
	slog.Error("a request failed", "error", err)
	page{Store: a.store, Demo: a.demo, Message: message, Trouble: true}.show(w, http.StatusServiceUnavailable)
}

//go:embed style.css
var style []byte

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("").Parse(pageHTML))

// page is what the template shows.
type page struct {
	Store       string
	Demo        bool
	Message     string
	Trouble     bool
	Name        string // "": nobody is signed in
	Username    string
	Renewed     bool
	Expires     time.Time
	API, Answer string
}

func (p page) show(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := pageTemplate.Execute(w, p); err != nil {
		slog.Debug("the browser has gone", "error", err)
	}
}
