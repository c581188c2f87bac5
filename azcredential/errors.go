package azcredential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// tokenError is every error of a Credential.
type tokenError struct {
	err  *persistence.Error
	kind error // what callers of the SDK look for; may be nil
}

func (e *tokenError) Error() string { return e.err.Error() }

// NonRetriable marks the error for the SDK: the Credential has retried what can be
// retried.
func (*tokenError) NonRetriable() {}

func (e *tokenError) wantsSignIn() bool {
	_, wants := e.kind.(*azidentity.AuthenticationRequiredError)
	return wants
}

// Unwrap returns both errors.
func (e *tokenError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.err}
	}
	return []error{e.err, e.kind}
}

// errNeedsNetwork is the answer to every request while only the cache is looked at.
var errNeedsNetwork = errors.New("the cache has no token that is good")

// errSeveral: nothing says which account is meant.
var errSeveral = errors.New("several accounts are signed in, and Options.Account names none")

const (
	signIn     = "Sign in: call Authenticate, or leave Options.DisableAutomaticAuthentication unset."
	choose     = "Sign in, or name the account in Options.Account."
	checkLogin = "Check the client ID, the tenant and the cloud, and what the registration of the application allows."
	tryLater   = "Try again later. Nothing is lost."
)

func (c *Credential) fail(op string, err error, remedy string, kind error) error {
	return &tokenError{&persistence.Error{Op: op, Backend: "azure", Location: "client " + strconv.Quote(c.clientID), Err: err, Remedy: remedy}, kind}
}

// silentError is the error of a request that asked nobody.
func (c *Credential) silentError(err error, tro policy.TokenRequestOptions) error {
	required := &azidentity.AuthenticationRequiredError{TokenRequestOptions: tro}
	var call msal.CallErr
	switch {
	case errors.Is(err, errNobody):
		return c.fail("get token", err, signIn, required)
	case errors.Is(err, errSeveral):
		return c.fail("get token", err, choose, required)
	case errors.As(err, &call):
		if code, text := answered(call); wantsUser(code) {
			return c.fail("get token", errors.New("the authority wants the user to sign in: "+text), signIn, required)
		}
	case !foreign(err): // MSAL has found no account or no refresh token
		return c.fail("get token", errors.New("nobody is signed in: "+shown(err.Error())), signIn, required)
	}
	return c.callError("get token", err)
}

// callError is the error of a request that no sign-in would help.
func (c *Credential) callError(op string, err error) error {
	var own *tokenError
	var storage *persistence.Error
	var call msal.CallErr
	var invalid msal.InvalidJsonErr
	var request *url.Error
	var lost *networkError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &storage):
		return &tokenError{storage, nil}
	case errors.Is(err, context.DeadlineExceeded):
		return c.fail(op, context.DeadlineExceeded, tryLater, nil)
	case errors.Is(err, context.Canceled):
		return c.fail(op, context.Canceled, tryLater, nil)
	case errors.As(err, &call):
		_, text := answered(call)
		remedy := checkLogin
		response := new(http.Response)
		if call.Resp != nil {
			*response = *call.Resp
			response.Request = nil // it has the refresh token
			if s := response.StatusCode; s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500 {
				remedy = tryLater
			}
		}
		return c.fail(op, errors.New("the authority has refused: "+text), remedy, &azidentity.AuthenticationFailedError{RawResponse: response})
	case errors.As(err, &invalid): // its text is all of the answer
		return c.fail(op, errors.New("the authority's answer is not JSON"), "Check whether a proxy or a firewall answers instead of the authority.", nil)
	case errors.As(err, &request):
		return c.fail(op, fmt.Errorf("the authority cannot be reached: %w", request.Err), tryLater, nil)
	case errors.As(err, &lost):
		return c.fail(op, fmt.Errorf("the authority cannot be reached: %w", lost.error), tryLater, nil)
	}
	return c.fail(op, errors.New(shown(err.Error())), checkLogin, nil)
}

// foreign reports whether err comes from elsewhere than MSAL's own reading of its
// cache.
func foreign(err error) bool {
	var storage *persistence.Error
	var request *url.Error
	var invalid msal.InvalidJsonErr
	var refused *networkError
	return errors.As(err, &storage) || errors.As(err, &request) || errors.As(err, &invalid) || errors.As(err, &refused) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// wantsUser reports whether an OAuth error asks for a sign-in.
func wantsUser(code string) bool {
	switch code {
	case "invalid_grant", "interaction_required", "login_required", "consent_required":
		return true
	}
	return false
}

// answered returns the OAuth error of an answer, and a text for a person.
func answered(call msal.CallErr) (code, text string) {
	var body []byte
	status := ""
	if call.Resp != nil {
		status = strconv.Itoa(call.Resp.StatusCode) + " " + http.StatusText(call.Resp.StatusCode)
		if call.Resp.Body != nil {
			body, _ = io.ReadAll(call.Resp.Body) // it is in memory
			call.Resp.Body = io.NopCloser(bytes.NewReader(body))
		}
	}
	if len(body) == 0 && call.Err != nil { // MSAL has read it, and quotes it
		_, quoted, _ := strings.Cut(call.Err.Error(), "\n")
		body = []byte(quoted)
	}
	var answer struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Code == "" {
		return "", "with " + status
	}
	return answer.Code, strings.TrimSpace(status + " " + shown(answer.Code) + " " + shown(answer.Description))
}

const mostText = 300 // bytes

// shown returns the beginning of what others wrote, as it may be shown: in
// quotation marks, and without words that are as long as a token.
func shown(text string) string {
	if len(text) > mostText {
		text = text[:mostText] + "…"
	}
	words := strings.Fields(text)
	for i, w := range words {
		if len(w) > 60 {
			words[i] = "…"
		}
	}
	return strconv.Quote(strings.Join(words, " "))
}
