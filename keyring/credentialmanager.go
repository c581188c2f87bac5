package keyring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	gokeyring "github.com/zalando/go-keyring"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// credentialManager is the keyring of Windows, through go-keyring and for List by
// itself. Its calls take no context. A call that has not returned when its time is up is left
// behind in its goroutine until the operating system returns.
type credentialManager struct {
	settings
	calls    calls
	list     func(filter string) ([]credential, error) // the generic credentials whose targets match
	classify func(error) error                         // for the platform's own errors; nil for an unknown one
	session  func() error                              // an error unless this logon session has the user's credentials and keeps them
}

// calls are the functions of go-keyring.
type calls interface {
	Get(service, user string) (string, error)
	Set(service, user, secret string) error
	Delete(service, user string) error
}

// credential is what names a credential.
type credential struct{ target, user string }

func (m *credentialManager) Get(ctx context.Context, service, user string) (string, error) {
	return callManager(ctx, m, "CredRead", func() (string, error) { return m.found("CredRead")(m.calls.Get(service, user)) })
}

func (m *credentialManager) Set(ctx context.Context, service, user, secret string) error {
	_, err := callManager(ctx, m, "CredWrite", func() (string, error) {
		if err := m.session(); err != nil {
			return "", err
		}
		return "", m.calls.Set(service, user, secret)
	})
	return err
}

func (m *credentialManager) Delete(ctx context.Context, service, user string) error {
	_, err := callManager(ctx, m, "CredDelete", func() (string, error) { return m.found("CredDelete")("", m.calls.Delete(service, user)) })
	return err
}

// List lists nothing in a session that may not have all of the user's credentials.
func (m *credentialManager) List(ctx context.Context, service string) ([]string, error) {
	return callManager(ctx, m, "CredEnumerate", func() ([]string, error) {
		if err := m.session(); err != nil {
			return nil, err
		}
		all, err := m.list(targetFilter(service))
		return usersOf(service, all), err
	})
}

// targetFilter returns the filter for the credentials of a service: the start of
// their targets, and an asterisk. What Windows makes of another asterisk or a question
// mark is not documented: the filter ends before it, and usersOf does the rest.
func targetFilter(service string) string {
	start := service + ":" // as go-keyring names targets
	if i := strings.IndexAny(start, "*?"); i >= 0 {
		start = start[:i]
	}
	return start + "*"
}

// usersOf returns the users of those credentials that are items of the service. The
// target "a:b:c" is an item of "a" or of "a:b": its user says of which.
func usersOf(service string, all []credential) (users []string) {
	for _, c := range all {
		if c.user != "" && c.target == service+":"+c.user {
			users = append(users, c.user)
		}
	}
	slices.Sort(users)
	return slices.Compact(users)
}

// found returns what a call of that function has returned, unless it has found nothing
// in a session that may not have the user's credentials: such a session has an empty set.
func (m *credentialManager) found(function string) func(string, error) (string, error) {
	return func(secret string, err error) (string, error) {
		if errors.Is(err, gokeyring.ErrNotFound) {
			if sessionErr := m.session(); sessionErr != nil {
				return "", rawcode.With(function+": ERROR_NOT_FOUND", sessionErr)
			}
		}
		return secret, err
	}
}

// ItemLimit returns the limit of Credential Manager.
func (*credentialManager) ItemLimit(service, user string) int { return 2560 }

// callManager calls Windows. function is the one of Windows that call calls.
func callManager[T any](ctx context.Context, m *credentialManager, function string, call func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	timeout := m.callTimeout(ctx)
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	value, err := within.Call(limited, call)
	switch {
	case err == nil || err != limited.Err():
		return value, m.classifyGoKeyring(function, err)
	case ctx.Err() != nil:
		return none, fmt.Errorf("waiting for the keyring: %w", ctx.Err())
	}
	return none, noAnswer("the keyring", timeout)
}

// classifyGoKeyring gives an error of go-keyring its class. function is what has failed
// with it.
func (m *credentialManager) classifyGoKeyring(function string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gokeyring.ErrNotFound):
		return persistence.ErrNotFound
	case errors.Is(err, gokeyring.ErrSetDataTooBig):
		return remedy.Errorf(keepInFile, "%w for an item of this keyring", persistence.ErrTooLarge)
	}
	if SituationOf(err) != "" {
		return err
	}
	if known := m.classify(err); known != nil {
		return rawcode.Copy(err, function, known)
	}
	return rawcode.Copy(err, function, err)
}

// persistLocalMachine is CRED_PERSIST_LOCAL_MACHINE: credentials that other logons
// of the user on this machine see. Below it are those of this session only, and
// none.
const persistLocalMachine = 2

// checkPersistence judges the answer of CredGetSessionTypes for generic
// credentials, or its failure.
func checkPersistence(maximum uint32, err error) error {
	const function = "CredGetSessionTypes"
	switch {
	case err != nil:
		return rawcode.Copy(err, function, newTrouble(NoSession, fmt.Sprintf("Windows does not say which credentials this logon session keeps (%v)", err), otherLogon))
	case maximum < persistLocalMachine:
		return rawcode.With(fmt.Sprintf("%s: %d for generic credentials", function, maximum),
			newTrouble(NoSession, "this logon session does not have its user's stored credentials", otherLogon))
	}
	return nil
}

const otherLogon = "Run the program in an interactive logon with the user's profile. " +
	"For a program that also runs over SSH or as a task, keep the key with DPAPI: in an interactive logon, tokenkeep move NAME -to dpapi. " +
	"If interactive logons have the same trouble, ask the administrator whether a policy forbids to store credentials."
