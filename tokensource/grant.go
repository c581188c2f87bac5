package tokensource

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Grant is a [Refresher] for tokens that are not refreshed: the grant that they come
// from is repeated. It makes one token request, for example
//
//	tokensource.Grant(conf.Token) // a *clientcredentials.Config
//
//	tokensource.Grant(func(ctx context.Context) (*oauth2.Token, error) {
//		return conf.TokenSource(ctx).Token() // a *jwt.Config
//	})
//
// The Source asks as few times as for a refresh: once for all processes. It needs no
// [Source.Save], and its error is never [ErrSignInRequired]. After [Source.Delete] the
// next call of Token asks again. Tokens are not bound to a client: each client needs a
// key of its own. A refresh token in an answer is not kept. The context has the HTTP
// client of [New]. Of an error of the provider, the Source's errors have the code and
// not the text, which could quote what a Grant sends.
type Grant func(ctx context.Context) (*oauth2.Token, error)

// TokenSource implements [Refresher].
func (g Grant) TokenSource(ctx context.Context, _ *oauth2.Token) oauth2.TokenSource {
	return granted{ctx, g}
}

type granted struct {
	ctx   context.Context
	grant Grant
}

// Token makes the request.
func (g granted) Token() (*oauth2.Token, error) { return g.grant(g.ctx) }

// repeats reports whether the Source repeats a grant instead of refreshing.
func (s *Source) repeats() bool {
	_, ok := s.conf.(Grant)
	return ok
}

// withoutText returns a provider's refusal without what the provider wrote.
func withoutText(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return err
	}
	only := &oauth2.RetrieveError{Response: refused.Response}
	if registered(refused.ErrorCode) {
		only.ErrorCode = refused.ErrorCode
	}
	return only
}

// WithIDToken makes the ID token the credential, as some APIs want it (Kubernetes
// for example): it is the AccessToken of the tokens that the Source returns, their
// Expiry is the ID token's own ("exp"), and it decides when to refresh. The ID token
// is not verified: it comes from the provider's token endpoint. A sign-in, and each
// refresh, must be answered with one. If a refresh is not, what came is stored, and
// Token fails.
func WithIDToken() Option {
	return func(s *Source) error { s.byID = true; return nil }
}

const idToken = "id_token"

// currentID returns the entry's ID token as the current token, or nil if it has none
// or that does not say when it expires.
func (e entry) currentID(early time.Duration) *current {
	_, rest, _ := strings.Cut(e.text(idToken), ".")
	payload, _, _ := strings.Cut(rest, ".")
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(payload, "="))
	if err != nil {
		return nil
	}
	var claims entry
	if json.Unmarshal(data, &claims) != nil {
		return nil
	}
	life := entry{expiresOn: claims["exp"], cachedAt: claims["iat"]}
	if life.time(expiresOn).IsZero() {
		return nil
	}
	t := e.token(false)
	t.AccessToken, t.TokenType, t.Expiry = e.text(idToken), "Bearer", life.time(expiresOn)
	return &current{token: t, due: life.due(early)}
}
