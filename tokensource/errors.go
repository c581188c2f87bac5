package tokensource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// What a caller does next, to be tested with [errors.Is].
var (
	// ErrSignInRequired: there is no token, or the provider takes the refresh
	// token no more. The user has to sign in; then call Save.
	ErrSignInRequired = errors.New("sign-in required")
	// ErrTemporary: the provider could not be reached, did not answer in time,
	// or said that it cannot serve now. Everything is kept; try again later. If
	// the provider said when, it is in the Retry-After header of the
	// Response of the *oauth2.RetrieveError that this error wraps.
	ErrTemporary = errors.New("temporary failure")
)

// Error codes of RFC 6749, section 5.2, and others, by what follows from them.
var (
	// The refresh token is good for nothing. The last two are GitHub's and Slack's.
	codesGone = []string{"invalid_grant", "bad_refresh_token", "invalid_refresh_token"}
	// The refresh token is good, but the user must do something first.
	codesInteraction = []string{"interaction_required", "login_required", "consent_required"}
	codesTemporary   = []string{"temporarily_unavailable", "server_error", "slow_down"}
)

// failure is what an exchange failed for. Its text holds no secret, and neither
// does anything that it wraps.
type failure struct {
	text  string
	class error // ErrSignInRequired, ErrTemporary or nil
	cause error
	gone  bool // the refresh token is good for nothing
	after time.Duration
}

func (f *failure) Error() string {
	if f.class == nil {
		return f.text
	}
	return f.class.Error() + ": " + f.text
}

func (f *failure) Unwrap() []error {
	return slices.DeleteFunc([]error{f.class, f.cause}, func(err error) bool { return err == nil })
}

// newFailure says what err, from an exchange, means. secrets were in the request.
func newFailure(err error, now time.Time, secrets ...string) *failure {
	clean := func(s string) string { return scrub(s, secrets) }
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		// No answer, or one that is not the provider's: a login page of the
		// network's, for example. The texts of such errors may quote the answer.
		f := &failure{class: ErrTemporary}
		var network *net.OpError
		if errors.As(err, &network) {
			f.text, f.cause = "the provider cannot be reached: "+network.Error(), network
		} else {
			f.text = "no answer of the provider: " + clean(err.Error())
			for _, c := range []error{context.DeadlineExceeded, context.Canceled} {
				if errors.Is(err, c) {
					f.text, f.cause = "the provider did not answer in time", c
				}
			}
		}
		return f
	}
	answer := refused.Response
	if answer == nil {
		answer = &http.Response{}
	}
	// Only this much of the answer is passed on: providers echo what they were sent.
	safe := &oauth2.RetrieveError{
		Response:         &http.Response{Status: clean(answer.Status), StatusCode: answer.StatusCode, Header: http.Header{}, Body: http.NoBody},
		ErrorCode:        clean(refused.ErrorCode),
		ErrorDescription: strings.TrimRight(clean(refused.ErrorDescription), ". "),
	}
	f := &failure{cause: safe}
	if after := answer.Header.Get("Retry-After"); after != "" {
		if f.after = retryAfter(after, now); f.after > 0 {
			safe.Response.Header.Set("Retry-After", strconv.FormatInt(int64((f.after+time.Second-1)/time.Second), 10))
		}
	}
	f.text = "the provider answered " + strings.TrimSpace(safe.ErrorCode+" "+strconv.Quote(safe.ErrorDescription))
	switch {
	case safe.ErrorCode == "":
		f.text = "the provider answered " + safe.Response.Status
	case safe.ErrorDescription == "":
		f.text = "the provider answered " + safe.ErrorCode
	}
	status, code := answer.StatusCode, refused.ErrorCode
	switch {
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, slices.Contains(codesTemporary, code):
		f.class = ErrTemporary
		if f.after > 0 {
			f.text += fmt.Sprintf(" and asks to wait %v", f.after)
		}
	case slices.Contains(codesGone, code):
		f.class, f.gone = ErrSignInRequired, true
	case slices.Contains(codesInteraction, code):
		f.class = ErrSignInRequired
	}
	return f
}

// longWord matches what may be a token.
var longWord = regexp.MustCompile(`[^\s"'()\[\]{}<>,;]{24,}`)

// scrub removes from a text what may be a secret.
func scrub(s string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "…")
		}
	}
	const most = 300
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return longWord.ReplaceAllString(s, "…")
}

// maxPause is the longest that a provider's Retry-After is obeyed.
const maxPause = 24 * time.Hour

// retryAfter parses a Retry-After header (RFC 9110, section 10.2.3).
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return min(max(time.Duration(n)*time.Second, 0), maxPause)
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(t.Sub(now), 0), maxPause)
	}
	return 0
}

func (s *Source) fail(op string, err error, remedy string) error {
	return &persistence.Error{Op: op, Backend: "oauth2", Location: s.key, Err: err, Remedy: remedy}
}

// failed is the error of an exchange.
func (s *Source) failed(f *failure) error {
	remedy := "Check the client's registration at the provider, and the endpoints."
	switch f.class {
	case ErrTemporary:
		remedy = "Nothing is lost; try again later."
	case ErrSignInRequired:
		remedy = signIn
	}
	return s.fail("refresh", f, remedy)
}

const signIn = "Sign in again."
