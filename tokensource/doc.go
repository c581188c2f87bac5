// Package tokensource keeps the tokens of any OAuth 2.0 provider, and refreshes
// each once for all processes that share them. It is a source of tokens for
// package golang.org/x/oauth2.
//
// Begin with [New], and hand the [Source] to oauth2.NewClient:
//
//	cache, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli"})
//	…
//	source, err := tokensource.New(ctx, cache, "github", conf) // an *oauth2.Config
//	…
//	if _, err := source.Token(); errors.Is(err, tokensource.ErrSignInRequired) {
//		token, err := signIn(ctx, conf) // conf.DeviceAccessToken, conf.Exchange, …
//		…
//		err = source.Save(ctx, token)
//		…
//	}
//	client := oauth2.NewClient(ctx, source)
//
// The programs examples/oauth-device and examples/oauth-loopback sign in.
//
// # Why
//
// Package oauth2 has no hook for a refreshed token, so a rotated refresh token is
// lost when the process ends. And a provider that rotates refresh tokens takes
// the second of two processes that refresh at once for a thief: it revokes all
// tokens of the sign-in (RFC 9700, section 4.14.2).
//
// # What a call does
//
//  1. While the token in hand is good, Token returns it, and looks at nothing
//     else. It is good until shortly before its expiry ([WithEarlyExpiry]; without
//     a refresh token, until its expiry), or until [Source.Invalidate]. Only then the stored token is read, and returned if it
//     is good: so what another process has refreshed or saved is seen. Only if it
//     is not, Token takes the refresh lock of that key, and waits for it no longer
//     than its context.
//  2. Under the lock the stored token is read again. If it is good now, it is
//     returned; else the refresh token just read is exchanged, never an older one.
//  3. The new token is stored before it is returned. If that fails it is kept in
//     memory and returned, the failure is logged, and the next call tries again to
//     store it, later ones at growing intervals of up to a minute. It yields to
//     what another process has stored or removed since.
//  4. If the provider says that the refresh token is good for nothing
//     (invalid_grant), the stored one is read once more. If it is another, that is
//     used. If it is the one that was sent, it is removed, and the error is
//     [ErrSignInRequired].
//  5. A network error, a status of 408, 429 or 5xx and an answer that is no OAuth
//     response keep everything, and the error is [ErrTemporary]. Where the provider
//     says by Retry-After when to come back, this Source does not ask before.
//  6. A refresh token, or any other field, that the provider leaves out of its
//     response stays as it was. Fields that this package does not know are kept,
//     and the token's Extra has them.
//  7. The locks are the cache's: their files lie beside its data. The cache must
//     have named locks, as every cache of tokenkeep.Open does.
//
// All goroutines of one Source share one refresh. One that gives up waiting ends
// it for nobody else.
//
// # Under other token sources
//
// oauth2.NewClient and oauth2.ReuseTokenSource keep the token that they were
// given until ten seconds before its expiry, and so hide until then what Invalidate or
// another process would change. That is harmless. Where the API may refuse a token
// before its expiry, use an [oauth2.Transport] with the Source itself, and call
// Invalidate when the API answers 401.
//
// A process that has a good token in hand does not notice that another one has
// signed out, or signed in as somebody else, before it reads the store again.
//
// # What is not promised
//
// Between the provider's answer and the save there is a moment in which only this
// process knows the new refresh token: if it is killed then, or the answer gets
// lost on its way, what is stored is spent. A provider that accepts a spent refresh
// token for a while then loses nothing; one that does not signs the user out. So
// a kill in that moment costs at most one sign-in of that key.
//
// A refresh that is made without this package (by oauth2.Config.Client, or by
// another program with a copy of the tokens) knows no lock. [Source.Token] returns
// tokens without their refresh token so that this does not happen by accident.
//
// # What is stored
//
// The tokens are in the section "OAuth2Token" of the cache, under their key. An
// entry has the fields of the provider's token response (RFC 6749, section 5.1)
// by their names, and
//
//   - cached_at: when the response came, in seconds since 1970,
//   - expires_on: when the access token expires, in seconds since 1970; missing if
//     the provider did not say.
//
// For example:
//
//	{"OAuth2Token": {"github": {"access_token": "…", "cached_at": 1767225600, "expires_in": 28800,
//	 "expires_on": 1767254400, "refresh_token": "…", "scope": "", "token_type": "bearer"}}}
//
// That is the form that the MSAL libraries' caches have (section, key, entry), with
// the names that tell which of two entries is the newer. So one cache may hold
// both; a program may give it to MSAL Go and to this package, and neither loses the other's
// entries. These names will not change.
package tokensource
