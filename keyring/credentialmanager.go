package keyring

import (
	"context"
	"errors"
	"fmt"

	gokeyring "github.com/zalando/go-keyring"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// credentialManager is the keyring of Windows, through go-keyring, whose calls
// take no context. A call that has not returned when its time is up is left
// behind in its goroutine until the operating system returns.
type credentialManager struct {
	settings
	calls    calls
	classify func(error) error // for the platform's own errors; nil for an unknown one
}

// calls are the functions of go-keyring.
type calls interface {
	Get(service, user string) (string, error)
	Set(service, user, secret string) error
	Delete(service, user string) error
}

func (m *credentialManager) Get(ctx context.Context, service, user string) (string, error) {
	return m.call(ctx, func() (string, error) { return m.calls.Get(service, user) })
}

func (m *credentialManager) Set(ctx context.Context, service, user, secret string) error {
	_, err := m.call(ctx, func() (string, error) { return "", m.calls.Set(service, user, secret) })
	return err
}

func (m *credentialManager) Delete(ctx context.Context, service, user string) error {
	_, err := m.call(ctx, func() (string, error) { return "", m.calls.Delete(service, user) })
	return err
}

// ItemLimit returns the limit of Credential Manager.
func (*credentialManager) ItemLimit(service, user string) int { return 2560 }

func (m *credentialManager) call(ctx context.Context, call func() (string, error)) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	timeout := m.callTimeout(ctx)
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	secret, err := within.Call(limited, call)
	switch {
	case err == nil || err != limited.Err():
		return secret, m.classifyGoKeyring(err)
	case ctx.Err() != nil:
		return "", fmt.Errorf("waiting for the keyring: %w", ctx.Err())
	}
	return "", noAnswer("the keyring", timeout)
}

// classifyGoKeyring gives an error of go-keyring its class.
func (m *credentialManager) classifyGoKeyring(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gokeyring.ErrNotFound):
		return persistence.ErrNotFound
	case errors.Is(err, gokeyring.ErrSetDataTooBig):
		return remedy.Errorf(keepInFile, "%w for an item of this keyring", persistence.ErrTooLarge)
	}
	if known := m.classify(err); known != nil {
		return known
	}
	return err
}
