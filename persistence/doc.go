// Package persistence has the interface that every backend of tokenkeep
// implements. Its [Cache] turns a backend into a token cache that many processes
// share.
//
// Most programs call tokenkeep.Open and need nothing from here but the error
// classes. A program with a storage of its own (a vault, an HSM, a session)
// implements the three methods of [Persistence], runs the suite of package
// persistencetest on it, and calls [New]:
//
//	c, err := persistence.New(vault, persistence.WithLockFile(path))
//	...
//	client, err := public.New(clientID, public.WithCache(c))
//
// A web app, with one cache per account, calls [NewPartitioned]. [Cache.Watch] tells
// who signs in or out elsewhere, and [Move] moves a cache to another backend.
//
// Optional interfaces say what more a backend can do, as in package io/fs:
// [Versioned] tells whether anything changed, [Locker] and [NamedLocker] bring the
// locks that writers share, [Leaser] has leases, [SetAsider] moves damaged data away,
// [Describer] says what the backend is.
//
// # Errors
//
// Every error of a backend is an [*Error], which names the operation, the
// backend, the place and the remedy, and matches one of the classes ([ErrNotFound],
// [ErrKeyringLocked], …) by errors.Is where one fits. No error holds a secret.
package persistence
