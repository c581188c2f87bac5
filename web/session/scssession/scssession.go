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
// The cookie of scs holds only a random name of the session, so the session's size does
// not matter. scs writes the session when the response begins: acquire tokens before
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

// Account returns the token cache of an account. Its methods use the session in their
// context, and there the key "tokenkeep:" followed by the account. Without a session in
// the context, as outside of manager.LoadAndSave, every method fails with
// persistence.ErrUnavailable. To remove what the session does not have does not change
// the session.
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
