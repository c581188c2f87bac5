// Package azcredential signs users in for the Azure SDK for Go, and keeps them
// signed in. A [Credential] is an azcore.TokenCredential over MSAL Go and a
// [persistence.Cache]: it asks the user once, by device code or in the browser, and
// finds the tokens again in the next run and in other processes.
//
//	cache, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli"})
//	…
//	credential, err := azcredential.New(cache, clientID, &azcredential.Options{
//		DeviceCode: func(_ context.Context, code public.DeviceCodeResult) error {
//			fmt.Println(code.Message)
//			return nil
//		},
//	})
//	…
//	client, err := armresources.NewClient(subscription, credential, nil)
//
// The credentials of package azidentity accept only that package's own cache.
// This one behaves as they do, with these differences: a sign-in is asked for only
// where it would help, not after every failure; a token that is still valid is
// returned although its early refresh failed; and of several processes that need a new
// token at once, one asks for it.
//
// # What a call does
//
//  1. [Credential.GetToken] returns the cached access token while it is good. That
//     needs no lock and no request, except for what MSAL has to learn of the
//     authority once in a process.
//  2. Otherwise it takes the account's lock (persistence.Cache.Exclusive, under the
//     home account ID), looks again, and uses the refresh token if the cache still
//     has no good access token. A cache without named locks is used without.
//     A request that was sent goes on when its caller's context has ended, for
//     persistence.DefaultTimeout at most, so that its answer is stored: an authority
//     may let a refresh token be used only once.
//  3. If the authority wants the user, GetToken asks for a sign-in or, with
//     Options.DisableAutomaticAuthentication, fails with an error that is an
//     *azidentity.AuthenticationRequiredError. Then call [Credential.Authenticate].
//
// A token that lives long has a RefreshOn. From that time on, step 2 is done although
// the token is good. If it fails, the token is returned all the same.
//
// # Continuous access evaluation
//
// A token for continuous access evaluation (CAE) lives for up to 28 hours, and a
// service may refuse it earlier with a claims challenge. A client that cannot answer
// such a challenge must not be given one. The clients of the SDK can. They set
// TokenRequestOptions.EnableCAE, and pass the claims of a challenge. Such access
// tokens are in a section of the cache of their own, "AccessTokenCAE", where no
// other user of the cache finds them. Accounts and refresh tokens are shared: one
// sign-in is enough for both kinds.
//
// With claims, every call makes a request, because MSAL does not know which cached
// token fulfils them.
//
// # Errors
//
// Errors wrap an *persistence.Error, which has the remedy. No policy of the SDK
// retries them. Beside that, an error wraps
//
//   - an *azidentity.AuthenticationRequiredError if the user must sign in. A
//     ChainedTokenCredential then tries its next credential.
//   - an *azidentity.AuthenticationFailedError if the authority refused the request,
//     with its response.
//   - the cause, if there was no answer: a context's error, a network error, an error
//     of the cache.
//
// No error has a token in it.
package azcredential
