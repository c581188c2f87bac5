package azcredential

import (
	"context"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// carriedThrough returns what call returns. From begin on, call uses the context that
// begin returns, which has the values of ctx. If ctx ends after that, its error is
// returned, and call goes on for persistence.DefaultTimeout at most: a request that
// was sent may have spent the refresh token, and then the answer must be stored. An
// authority that permits no second use would sign the user out.
func carriedThrough(ctx context.Context, call func(begin func() context.Context) (public.AuthResult, error)) (public.AuthResult, error) {
	type outcome struct {
		result public.AuthResult
		err    error
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	begun, done := make(chan struct{}), make(chan outcome, 1)
	go func() {
		defer cancel()
		result, err := call(func() context.Context { close(begun); return work })
		done <- outcome{result, err}
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-begun:
	}
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
		time.AfterFunc(persistence.DefaultTimeout, cancel)
		return public.AuthResult{}, ctx.Err()
	}
}
