// Package sealed encrypts token caches above the store that keeps them, so that
// the server of a database or a Redis never sees a token.
//
//	keys, err := sealed.New(sealed.NewKey("2026-01", secret)) // 32 random bytes
//	...
//	cache, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
//		return keys.Account(account, store.Account(account)), nil
//	})
//
// Each save is AES-256-GCM under a key of its own, derived from the current
// key and a random salt. The account is bound in: what was saved for one account
// does not open as another's. FORMAT.md has the format to the byte.
//
// # Keys
//
// Every program that shares the store needs the same keys, from a secret
// manager, a file or the environment. A key is 32 random bytes, not a
// passphrase. Its id stands in plain text before the data that it sealed.
//
// To replace a key while serving, first give every server the new one as an older
// key, so that all can open what it seals; then make it the current one, and the
// old one an older key. [Keys.Replace] does each without a restart. Data is
// sealed with the current key when it is saved next. The old key may be thrown
// away when the store has no data left that it sealed: at the latest when the
// store's time to live has passed.
//
// # Errors
//
//   - persistence.ErrKeyMissing: the data names a key that is not among the keys.
//   - persistence.ErrWrongKey: the data was sealed with another key of the same id.
//   - persistence.ErrCorrupt: the data was changed, or is another account's, or
//     was never sealed.
//   - persistence.ErrUnsupportedVersion: a newer version of this package sealed it.
//
// A user whose data does not open cannot sign in until the data is gone. If the error
// is ErrCorrupt, or ErrKeyMissing with a key that is lost, remove the data with SignOut
// of persistence.Partitioned; it needs no key.
//
// # What is not hidden
//
// Accounts' names, which are the store's keys; when data is saved, and how long it
// is; which saves were under one key. An older copy that is put back opens.
package sealed
