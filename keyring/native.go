package keyring

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	gokeyring "github.com/zalando/go-keyring"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// native is the keyring of macOS or Windows, by way of go-keyring, whose calls
// know no context.
//
// Each call runs in a goroutine of its own. If it has not returned when its
// time is up, it is left behind until the operating system lets go of it; on
// macOS with a process of /usr/bin/security, which may be showing a dialog.
type native struct {
	systemOptions
	calls    calls
	goos     string
	classify func(error) error // the platform's own errors; nil for one it does not know
}

// calls are those of go-keyring.
type calls interface {
	Get(service, user string) (string, error)
	Set(service, user, secret string) error
	Delete(service, user string) error
}

func (n *native) Get(ctx context.Context, service, user string) (string, error) {
	return n.bounded(ctx, service, user, func() (string, error) { return n.calls.Get(service, user) })
}

func (n *native) Set(ctx context.Context, service, user, secret string) error {
	_, err := n.bounded(ctx, service, user, func() (string, error) { return "", n.calls.Set(service, user, secret) })
	return err
}

func (n *native) Delete(ctx context.Context, service, user string) error {
	_, err := n.bounded(ctx, service, user, func() (string, error) { return "", n.calls.Delete(service, user) })
	return err
}

func (n *native) ItemLimit(service, user string) int { return ItemLimit(n.goos, service, user) }

func (n *native) bounded(ctx context.Context, service, user string, call func() (string, error)) (string, error) {
	// security(1) ends a quoted word at any quote and drops backslashes, so
	// that Set and Get would mean different items.
	if n.goos == "darwin" && strings.ContainsAny(service+user, `'\`) {
		return "", errors.New("on macOS the service and user must have no quote and no backslash")
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	timeout := n.timeout
	if n.prompt {
		// The system asks by itself, and does not tell.
		timeout = promptTimeout
		if deadline, ok := ctx.Deadline(); ok {
			timeout = time.Until(deadline)
		}
	}
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
	var badBase64 base64.CorruptInputError
	var badHex hex.InvalidByteError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gokeyring.ErrNotFound):
		return persistence.ErrNotFound
	case errors.Is(err, gokeyring.ErrSetDataTooBig):
		return &advice{fmt.Errorf("%w for an item of this keyring", persistence.ErrTooLarge), keepInFile}
	case errors.As(err, &badBase64), errors.As(err, &badHex), errors.Is(err, hex.ErrLength):
		// These errors quote what they could not decode.
		return fmt.Errorf("%w: the item cannot be decoded", persistence.ErrCorrupt)
	}
	if known := n.classify(err); known != nil {
		return known
	}
	return err
}

// classifyExit maps an exit status of macOS's security(1): the low byte of the
// OSStatus that it met.
func classifyExit(code int) error {
	unlock := "Unlock the login keychain (security unlock-keychain, or log in at the screen) and try again."
	switch code {
	case 36: // errSecInteractionNotAllowed, -25308
		return locked("the keychain may not ask, as in an SSH session", unlock)
	case 51: // errSecAuthFailed, -25293
		return locked("the keychain refused access to the item", unlock)
	case 128: // userCanceledErr, -128
		return locked("the user declined", "Allow the access when asked.")
	case 37, 50, 53: // errSecNoDefaultKeychain, errSecNoSuchKeychain, errSecNotAvailable
		return unavailable("there is no keychain", "Create a login keychain with Keychain Access.")
	}
	return nil
}

// noAnswer is the error of a keyring that takes longer than it may. It is also
// context.DeadlineExceeded.
func noAnswer(who string, after time.Duration) error {
	return &advice{fmt.Errorf("%w: %s did not answer within %v: %w", persistence.ErrUnavailable, who, after, context.DeadlineExceeded),
		"Look whether the keyring's program hangs or is showing a dialog, and restart it if need be."}
}
