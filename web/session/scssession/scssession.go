// Package scssession keeps token caches in the sessions of
// github.com/alexedwards/scs. Read package session first: it says what a session
// cannot do.
//
//	sessions := scs.New() // with a store of its own; the default one is in memory
//	cache, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
//		return scssession.Account(sessions, account, nil), nil
//	})
//	...
//	http.ListenAndServe(addr, sessions.LoadAndSave(handler))
//
// Of the session, scs has only a random name in the cookie, so its size is no
// matter. scs writes the session when the response begins: acquire tokens before
// you write anything.
package scssession

import (
	"context"
	"errors"
	"fmt"

	"github.com/alexedwards/scs/v2"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/session"
)

// Account returns the token cache of an account in the session of whatever
// context its methods are given, under the session's key "tokenkeep:" followed
// by the account. Without a session in the context, as outside of
// manager.LoadAndSave, every method fails with persistence.ErrUnavailable.
// Removing what the session does not have does not change it.
func Account(manager *scs.SessionManager, account string, opts *session.Options) *session.Session {
	key := "tokenkeep:" + account
	return session.New(
		func(ctx context.Context) (data []byte, err error) {
			defer noSession(&err)
			if !manager.Exists(ctx, key) {
				return nil, nil
			}
			data, ok := manager.Get(ctx, key).([]byte)
			if !ok {
				return nil, fmt.Errorf("%w: under %q the session has something else", persistence.ErrCorrupt, key)
			}
			return append([]byte{}, data...), nil // some codecs read empty as nil
		},
		func(ctx context.Context, data []byte) (err error) {
			defer noSession(&err)
			if data == nil {
				manager.Remove(ctx, key)
			} else {
				manager.Put(ctx, key, data)
			}
			return nil
		}, opts)
}

// noSession turns scs's panic, where the context has no session, into an error.
func noSession(err *error) {
	if p := recover(); p != nil {
		if p != "scs: no session data in context" {
			panic(p)
		}
		*err = &persistence.Error{Op: "find", Backend: "session", Err: fmt.Errorf("%w: %w", persistence.ErrUnavailable, errors.New("the context has no session")),
			Remedy: "Give MSAL the request's context, in a handler inside of the session manager's LoadAndSave."}
	}
}
