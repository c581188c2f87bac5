package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	gokeyring "github.com/zalando/go-keyring"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// native is the keyring of Windows, by way of go-keyring, whose calls know no
// context.
//
// Each call runs in a goroutine of its own. If it has not returned when its
// time is up, it is left behind until the operating system lets go of it.
type native struct {
	systemOptions
	calls    calls
	classify func(error) error // the platform's own errors; nil for one it does not know
}

// calls are those of go-keyring.
type calls interface {
	Get(service, user string) (string, error)
	Set(service, user, secret string) error
	Delete(service, user string) error
}

func (n *native) Get(ctx context.Context, service, user string) (string, error) {
	return n.bounded(ctx, func() (string, error) { return n.calls.Get(service, user) })
}

func (n *native) Set(ctx context.Context, service, user, secret string) error {
	_, err := n.bounded(ctx, func() (string, error) { return "", n.calls.Set(service, user, secret) })
	return err
}

func (n *native) Delete(ctx context.Context, service, user string) error {
	_, err := n.bounded(ctx, func() (string, error) { return "", n.calls.Delete(service, user) })
	return err
}

func (n *native) ItemLimit(service, user string) int { return ItemLimit("windows", service, user) }

func (n *native) bounded(ctx context.Context, call func() (string, error)) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	timeout := n.patience(ctx)
	type result struct {
		secret string
		err    error
	}
	done := make(chan result, 1) // so that a call that comes too late can end
	go func() {
		secret, err := call()
		done <- result{secret, err}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.secret, n.class(r.err)
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for the keyring: %w", ctx.Err())
	case <-timer.C:
		return "", noAnswer("the keyring", timeout)
	}
}

// class gives an error of go-keyring its class.
func (n *native) class(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gokeyring.ErrNotFound):
		return persistence.ErrNotFound
	case errors.Is(err, gokeyring.ErrSetDataTooBig):
		return &advice{fmt.Errorf("%w for an item of this keyring", persistence.ErrTooLarge), keepInFile}
	}
	if known := n.classify(err); known != nil {
		return known
	}
	return err
}

// noAnswer is the error of a keyring that takes longer than it may. It is also
// context.DeadlineExceeded.
func noAnswer(who string, after time.Duration) error {
	return &advice{fmt.Errorf("%w: %s did not answer within %v: %w", persistence.ErrUnavailable, who, after, context.DeadlineExceeded),
		"Look whether the keyring's program hangs or is showing a dialog, and restart it if need be."}
}
