// Package web is for web apps and APIs: one token cache for each signed-in
// account, in a session, Redis or a database, shared by several servers. There is
// nothing in this package itself. A program puts together what it needs:
//
//	cache, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
//		return memory.Account(account, keys.Account(account, store.Account(account))), nil
//	})
//	...
//	// for each request:
//	client, err := confidential.New(authority, clientID, credential, confidential.WithCache(cache),
//		confidential.WithHTTPClient(httpClient), confidential.WithInstanceDiscovery(false))
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
// The program in examples/signin has all of it.
package web
