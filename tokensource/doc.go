// Package tokensource keeps the tokens of any OAuth 2.0 provider and refreshes
// each one once for all processes that share it. It is a source of tokens for
// package golang.org/x/oauth2.
//
// Begin with [New], and pass the [Source] to oauth2.NewClient:
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
// lost when the process ends. And if two processes refresh at the same time, a
// provider that rotates refresh tokens takes the second one for a thief and
// revokes all tokens of the sign-in (RFC 9700, section 4.14.2).
//
// # What a call does
//
//  1. While the current token is good, Token returns it and looks at nothing else.
//     It is good until shortly before its expiry ([WithEarlyExpiry]; without a
//     refresh token, until its expiry), or until [Source.Invalidate]. After that,
//     Token reads the stored token and returns it if it is still good; this is how
//     it sees what another process refreshed or saved. Otherwise it takes the
//     refresh lock of the key. It waits for the lock no longer than its context
//     allows.
//  2. Under the lock, Token reads the stored token again. If it is good now, Token
//     returns it. Otherwise it exchanges the refresh token that it has just read,
//     never an older one.
//  3. The new token is stored before it is returned. If that fails, it stays in
//     memory and is returned, and the failure is logged. The next call tries again
//     to store it, later calls at growing intervals of up to a minute. It does not
//     replace what another process has stored or removed since.
//  4. If the provider says that the refresh token no longer works (invalid_grant),
//     the stored one is read once more. If it is another one, that is used. If it is
//     the one that was sent, it is removed, and the error is [ErrSignInRequired].
//  5. Only the error codes of RFC 6749, and registered ones that no retry can
//     change, are final. After everything else nothing is lost, and the error is
//     [ErrTemporary]: a network error, a status of 407, 408, 429 or 5xx, a redirect,
//     and every answer that is no OAuth error, such as a page of a firewall. Where
//     the provider says by Retry-After when to come back, this Source does not ask
//     before.
//  6. A refresh token, or any other field, that the provider leaves out of its
//     response stays as it was. Fields that this package does not know are kept,
//     and the token's Extra has them.
//  7. The locks are the cache's: their files lie beside its data. The cache must
//     have named locks, as every cache of tokenkeep.Open does.
//  8. A refresh token goes only to the client and the provider that it is from.
//     A stored token is bound to both (see [Source.Save]), and a Source of another
//     client or provider does not refresh it: the error is [ErrOtherClient]. Token
//     requests follow no redirect.
//
// All goroutines of one Source share one refresh. A goroutine that stops waiting
// does not end it for the others.
//
// # Other grants
//
// A [Grant] is repeated where other tokens are refreshed: client credentials, a JWT
// bearer assertion. With [WithIDToken] the ID token is the credential.
//
// # Under other token sources
//
// oauth2.NewClient and oauth2.ReuseTokenSource keep the token that they were
// given until ten seconds before its expiry. Until then they do not see what
// Invalidate or another process has changed. That is harmless. Where the API may
// refuse a token before its expiry, use an [oauth2.Transport] with the Source
// itself, and call Invalidate when the API answers 401: the example "Transport" of
// Invalidate has an http.RoundTripper that does so.
//
// A process whose current token is good does not notice that another process has
// signed out, or signed in as somebody else, before it reads the store again.
//
// # What is not promised
//
// Between the provider's answer and the save, only this process knows the new
// refresh token. If the process is killed in that moment, or if the answer is lost
// on its way, the stored refresh token is spent. If the provider accepts a spent
// refresh token for a while, nothing is lost; if not, the user is signed out. So a
// kill in that moment costs at most one sign-in of that key.
//
// A refresh that is made without this package (by oauth2.Config.Client, or by
// another program with a copy of the tokens) takes no lock. [Source.Token] returns
// tokens without their refresh token so that this does not happen by accident.
//
// That a stored token is bound protects against mistakes: two programs that share a
// key, a configuration that names another provider. It does not protect against
// a program that can read the cache. A stored access token that is still good is
// returned whatever it is bound to. A [Refresher] that sends its requests with an
// HTTP client of its own decides itself about redirects.
//
// # Errors
//
// No error and no log record holds a token or the client secret, also where the
// provider's answer quotes them: they are removed in every usual encoding. Of the
// answer, errors have the error code, the first 300 bytes of the description, the
// status code and Retry-After. Text of the provider that a terminal would not show
// as it is, such as control characters, is escaped.
//
// # What is stored
//
// The tokens are in the section "OAuth2Token" of the cache, under their key. An
// entry has the fields of the provider's token response (RFC 6749, section 5.1)
// by their names, and
//
//   - cached_at: when the response came, in seconds since 1970,
//   - expires_on: when the access token expires, in seconds since 1970; missing if
//     the provider did not say,
//   - bound_client_id, bound_issuer and bound_token_endpoint: what the entry is
//     bound to, as far as it is known. Without the last two it is not bound.
//
// For example:
//
//	{"OAuth2Token": {"github": {"access_token": "…", "bound_client_id": "Iv1.5e1f",
//	 "bound_token_endpoint": "https://github.com/login/oauth/access_token",
//	 "cached_at": 1767225600, "expires_in": 28800, "expires_on": 1767254400,
//	 "refresh_token": "…", "scope": "", "token_type": "bearer"}}}
//
// That is the form of the MSAL libraries' caches (section, key, entry), with the
// same names for the times that tell which of two entries is newer. So one cache
// may hold both: a program may give it to MSAL Go and to this package, and neither
// loses the other's entries. These names will not change.
package tokensource
