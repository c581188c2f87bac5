package persistence

import (
	"context"
	"errors"
)

type signingInKey struct{}

// SigningIn returns a context for the call of MSAL that completes a sign-in, such
// as AcquireTokenByAuthCode:
//
//	result, err := client.AcquireTokenByAuthCode(persistence.SigningIn(r.Context()), code, redirect, scopes)
//
// MSAL redeems the code and only then reads its cache. With this context, a cache
// that cannot be read does not fail the sign-in, which would lose its tokens: the
// in-memory cache starts empty, and what the sign-in brings is kept until it can be
// merged with what is stored. It has no effect with [WithStrict], or where what is
// stored is damaged.
//
// Never use it for a silent call: MSAL would find no token, and your program would
// take the user for signed out.
func SigningIn(ctx context.Context) context.Context {
	return context.WithValue(ctx, signingInKey{}, true)
}

func isSigningIn(ctx context.Context) bool { return ctx.Value(signingInKey{}) != nil }

// mayPass reports whether a Replace that failed with err may succeed later, with
// what is stored now.
func mayPass(err error) bool {
	var text redactedError
	return !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupportedVersion) && !errors.As(err, &text)
}
