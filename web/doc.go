// Package web is for web apps and APIs: one token cache for each signed-in
// account, in a session, Redis or a database, shared by several servers. The package
// itself is empty. A program combines the packages below it that it needs:
//
//	cache, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
//		return memory.Account(account, keys.Account(account, store.Account(account))), nil
//	}, persistence.WithTimeout(2*time.Second))
//	...
//	httpClient := &http.Client{Transport: discovery.NewTransport(nil), Timeout: 30 * time.Second}
//	...
//	// for each request:
//	client, err := confidential.New(authority, clientID, credential, confidential.WithCache(cache),
//		confidential.WithHTTPClient(httpClient), confidential.WithInstanceDiscovery(false))
//	err = cache.Exclusive(r.Context(), account, func(ctx context.Context) error { … }) // Account, AcquireTokenSilent
//	...
//	left, err := cache.Flush(ctx) // every few seconds, and before the program ends
//
// Set the timeout. The default of 30 seconds is for a person who unlocks a keyring;
// a store that hangs would hold each request for that long. It applies to requests
// whose context has no deadline, as those of net/http have none; under an
// http.TimeoutHandler, that handler's limit applies.
//
// [github.com/tokenkeep/tokenkeep/persistence.Partitioned] is the cache, and says
// what a program must know about MSAL in a web app. A store is one of
//
//   - [github.com/tokenkeep/tokenkeep/web/redisstore], Redis;
//   - [github.com/tokenkeep/tokenkeep/web/sqlstore], PostgreSQL, SQLite, MySQL;
//   - [github.com/tokenkeep/tokenkeep/web/session], the web session.
//
// The first two have leases, so that one of all servers refreshes an account's
// tokens and the others wait for them. With a web session, each server may refresh
// once, and Flush stores nothing: outside of a request there is no session.
//
// In front of it there may be
//
//   - [github.com/tokenkeep/tokenkeep/web/sealed], so that the server never sees a
//     token;
//   - [github.com/tokenkeep/tokenkeep/web/firstlevel], memory that asks the store
//     whether it is current before it is believed.
//
// [github.com/tokenkeep/tokenkeep/web/discovery] keeps the document in which the
// authority names its endpoints; without it, each refresh asks for it first.
//
// Sign a user out of the app only if nothing is stored for the account, or if the
// authority answers with invalid_grant or asks for interaction. Every other error
// passes: a busy authority, a store that is down, a key that this server does not
// have yet. Delete only what is ErrCorrupt, or ErrKeyMissing with a key that is lost.
//
// # When the store fails
//
// While the store refuses writes, refreshes and sign-ins go on: their tokens are
// kept in the process, up to persistence.WithMaxUnsaved bytes, until Flush or the
// user's next request stores them. Those that are still kept when the process ends
// are lost, so flush at intervals and at the end, and watch Unsaved in your metrics.
// While the store cannot be read, silent sign-ins fail; a sign-in whose context is
// persistence.SigningIn succeeds. Sign-outs fail until the store works again.
//
// The program in examples/signin does all of this.
package web
