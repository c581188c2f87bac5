// Package web is for web apps and APIs: one token cache for each signed-in
// account, in a session, Redis or a database, shared by several servers. There is
// nothing in this package itself. A program puts together what it needs:
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
//
// Set the timeout. The default of 30 seconds is for a person who unlocks a keyring;
// a store that hangs would hold each request for that long.
//
// [github.com/tokenkeep/tokenkeep/persistence.Partitioned] is the cache, and says
// what is to be known about MSAL in a web app. A store is one of
//
//   - [github.com/tokenkeep/tokenkeep/web/redisstore], Redis;
//   - [github.com/tokenkeep/tokenkeep/web/sqlstore], PostgreSQL, SQLite, MySQL;
//   - [github.com/tokenkeep/tokenkeep/web/session], the web session.
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
// have yet. Delete only what is ErrCorrupt.
//
// The program in examples/signin does all of this.
package web
