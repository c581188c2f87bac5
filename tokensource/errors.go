package tokensource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// What a caller does next, to be tested with [errors.Is].
var (
	// ErrSignInRequired: there is no token, or the provider no longer accepts
	// the refresh token, or it is another client's (then the error is also
	// ErrOtherClient). The user has to sign in; then call Save. If the provider
	// refused, the error also wraps its *oauth2.RetrieveError.
	ErrSignInRequired = errors.New("sign-in required")
	// ErrTemporary: the provider could not be reached, did not answer in time,
	// said that it cannot serve now, or something else answered for it. Nothing
	// is lost; try again later. If the provider said when, it is in the
	// Retry-After header of the Response of the *oauth2.RetrieveError that this
	// error wraps.
	ErrTemporary = errors.New("temporary failure")
	// ErrOtherClient: the stored token was made with another client, or at
	// another provider, than the Source's, and so it is not refreshed. Nothing was
	// sent. The error is an ErrSignInRequired too: a sign-in with this client
	// replaces the other's. If both clients are in use, each needs a key of its
	// own; if the provider has moved, see [WithFormerEndpoints].
	ErrOtherClient = errors.New("the stored token belongs to another client or provider")
)

// The error codes of token endpoints, by what follows from them. Every other code
// is temporary.
var (
	// The refresh token no longer works. Beside RFC 6749's, GitHub's and Slack's.
	codesGone = []string{"invalid_grant", "bad_refresh_token", "invalid_refresh_token"}
	// The refresh token works, but the user must do something first (OpenID
	// Connect Core, section 3.1.2.6).
	codesInteraction = []string{"interaction_required", "login_required", "consent_required", "account_selection_required"}
	// No retry helps: RFC 6749, sections 4.1.2.1 and 5.2, RFC 8707, RFC 9200, RFC
	// 9396, RFC 9449; and GitHub's for a wrong secret.
	codesFinal = []string{"invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
		"access_denied", "unsupported_response_type", "invalid_target", "unsupported_pop_key", "incompatible_ace_profiles",
		"invalid_authorization_details", "invalid_dpop_proof", "use_dpop_nonce", "incorrect_client_credentials"}
	// Temporary as every other code, and registered.
	codesTemporary = []string{"temporarily_unavailable", "server_error", "slow_down", "authorization_pending", "expired_token",
		"invalid_token", "insufficient_scope", "unsupported_token_type", "insufficient_user_authentication"}
)

// registered reports whether code is an error code that this package knows.
func registered(code string) bool {
	for _, codes := range [][]string{codesGone, codesInteraction, codesFinal, codesTemporary} {
		if slices.Contains(codes, code) {
			return true
		}
	}
	return false
}

// failure is why an exchange failed. Neither its text nor what it wraps has a
// secret in it, or anything that a terminal would not show as it is.
type failure struct {
	text   string
	class  error // ErrSignInRequired, ErrTemporary or nil
	cause  error
	remedy string
	gone   bool // the refresh token no longer works
	after  time.Duration
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

const (
	signIn      = "Sign in again."
	signInOnce  = "Sign in again. To sign in only once, a program asks the provider for a refresh token, most often with the scope offline_access; at Google with oauth2.AccessTypeOffline."
	tryLater    = "Nothing is lost; try again later."
	notOAuth    = "Nothing is lost; try again later. If it stays so, a proxy or firewall answers for the provider, or the token endpoint is wrong."
	checkClient = "Check the client's registration at the provider, and the endpoints."
)

// newFailure says what err, from an exchange, means. clean removes from a text
// the secrets that were in the request.
func newFailure(err error, now time.Time, clean func(string) string) *failure {
	show := func(s string) string { return quote.Inline(clean(s)) }
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return noAnswer(err, show)
	}
	answer := refused.Response
	if answer == nil {
		answer = &http.Response{}
	}
	status, code := answer.StatusCode, refused.ErrorCode
	known := registered(code)
	if !known {
		code = show(code)
	}
	// Only this much of the answer is passed on.
	safe := &oauth2.RetrieveError{
		Response:         &http.Response{Status: statusText(status), StatusCode: status, Header: http.Header{}, Body: http.NoBody},
		ErrorCode:        code,
		ErrorDescription: strings.TrimRight(show(refused.ErrorDescription), ". "),
	}
	f := &failure{cause: safe, class: ErrTemporary, remedy: tryLater}
	if after := answer.Header.Get("Retry-After"); after != "" {
		if f.after = retryAfter(after, now); f.after > 0 {
			safe.Response.Header.Set("Retry-After", strconv.FormatInt(int64((f.after+time.Second-1)/time.Second), 10))
		}
	}
	f.text = "the provider answered "
	switch {
	case status >= 300 && status < 400:
		f.text += statusText(status) + "; a token request follows no redirect"
	case code == "":
		f.text += statusText(status) + ", without an OAuth error code"
	case known:
		f.text += code
	default:
		f.text += quote.Text(code)
	}
	if code != "" && safe.ErrorDescription != "" {
		f.text += ` "` + safe.ErrorDescription + `"`
	}
	switch {
	case status >= 300 && status < 400, status == http.StatusProxyAuthRequired, status == http.StatusNetworkAuthenticationRequired:
		f.remedy = notOAuth
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, slices.Contains(codesTemporary, code):
	case slices.Contains(codesGone, code):
		f.class, f.remedy, f.gone = ErrSignInRequired, signIn, true
	case slices.Contains(codesInteraction, code):
		f.class, f.remedy = ErrSignInRequired, signIn
	case slices.Contains(codesFinal, code):
		f.class, f.remedy = nil, checkClient
	default:
		f.remedy = notOAuth
	}
	if f.class == ErrTemporary && f.after > 0 {
		f.text += fmt.Sprintf(" and asks to wait %v", f.after)
	}
	return f
}

// noAnswer is newFailure for an error that is no OAuth answer. Its text may quote
// what answered.
func noAnswer(err error, show func(string) string) *failure {
	f := &failure{class: ErrTemporary, remedy: tryLater}
	var network *net.OpError
	if errors.As(err, &network) {
		text := network.Error()
		if f.text = show(text); f.text == text { // else the error must not be passed on
			f.cause = network
		}
		f.text = "the provider cannot be reached: " + f.text
		return f
	}
	for _, c := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, c) {
			f.text, f.cause = "the provider did not answer in time", c
			return f
		}
	}
	if strings.HasPrefix(err.Error(), "oauth2: cannot parse") {
		f.text, f.remedy = "the answer is not an OAuth token response", notOAuth
		return f
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // the endpoint may have a secret in it
	}
	f.text = "no token from the provider: " + show(err.Error())
	return f
}

// statusText is the status line of a status code. The one that came with the
// answer could say anything.
func statusText(code int) string {
	if code == 0 {
		return "with no status"
	}
	return strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
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
	return &persistence.Error{Op: op, Backend: "oauth2", Location: quote.Inline(s.key), Err: err, Remedy: remedy}
}
