package keyring

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Keyring is a keyring of small items, each named by a service (the program or
// cache it belongs to) and a user. [System] is the operating system's; package
// [github.com/tokenkeep/tokenkeep/keyring/keyringtest] has one for tests.
//
// Get and Delete of what is not there return an error that is
// persistence.ErrNotFound. A Set that succeeded is seen by every later Get, of
// any process; one that failed has left the old secret or the new one, whole.
// Every method is safe for concurrent use and returns once its context has
// ended. No error holds a secret.
type Keyring interface {
	Get(ctx context.Context, service, user string) (string, error)
	Set(ctx context.Context, service, user, secret string) error
	Delete(ctx context.Context, service, user string) error
}

// Limited is a [Keyring] that knows how large a secret it takes.
type Limited interface {
	Keyring
	// ItemLimit returns the size in bytes of the largest secret that Set takes
	// under that name; 0 means that there is no limit worth heeding.
	ItemLimit(service, user string) int
}

// ItemLimit returns the size in bytes of the largest secret that the keyring
// of an operating system (a value of runtime.GOOS) takes under that name, as
// reached through this package; 0 means that there is no limit worth heeding.
//
//   - windows: 2,560, the limit of Credential Manager.
//   - darwin: about 3,000 less three quarters of the names. The line that is
//     sent to /usr/bin/security holds names and secret, and is cut off at 4,095
//     bytes.
//   - elsewhere 0: the Secret Service has none but D-Bus's 128 MiB for a message.
func ItemLimit(goos, service, user string) int {
	switch goos {
	case "windows":
		return 2560
	case "darwin":
		// A few bytes to spare; what is left holds the secret in base64.
		left := 4080 - len(addCommand(service, user, ""))
		return max(left/4*3, 1)
	}
	return 0
}

// A SystemOption is a setting of [System].
type SystemOption func(*systemOptions)

type systemOptions struct {
	prompt  bool
	timeout time.Duration
}

// AllowPrompt lets a call wait while the keyring asks the user something, most
// often for the password that unlocks it. The wait ends with the context, or
// after two minutes if the context has no deadline, and what was asked is then
// withdrawn. It is for programs with somebody in front of the screen.
//
// Without it nothing is asked: a call that would need it fails with
// ErrKeyringLocked at once. (macOS and Windows decide for themselves whether
// they ask; there the option only makes calls wait so much longer.)
func AllowPrompt() SystemOption {
	return func(o *systemOptions) { o.prompt = true }
}

// WithTimeout sets how long a call may take that asks nobody, however much
// later its context ends. The default is 10 seconds; a sound keyring needs
// milliseconds. A d that is not positive means the default.
func WithTimeout(d time.Duration) SystemOption {
	return func(o *systemOptions) {
		if d > 0 {
			o.timeout = d
		}
	}
}

// patience is how long a call may take of a keyring that asks by itself, and
// does not tell.
func (o systemOptions) patience(ctx context.Context) time.Duration {
	switch _, ok := ctx.Deadline(); {
	case !o.prompt:
		return o.timeout
	case ok:
		return 1 << 62 // the context alone counts
	}
	return promptTimeout
}

const (
	defaultTimeout = 10 * time.Second
	promptTimeout  = 2 * time.Minute
)

// System returns the operating system's keyring: the Secret Service (GNOME
// Keyring, KWallet, KeePassXC) on Linux and the BSDs, the Keychain on macOS,
// Credential Manager on Windows. It is a [Limited]. It does no I/O, keeps
// nothing open between calls and needs no Close.
//
// Besides the errors of every Keyring its calls return
//
//   - ErrUnavailable where there is no such keyring, or it does not answer
//     within the timeout (see [WithTimeout]); the error says what is missing
//     and what would help;
//   - ErrKeyringLocked where it is locked and nobody may be asked, or where the
//     user declined;
//   - ErrTooLarge for a secret beyond [ItemLimit];
//   - the context's error once the context has ended.
//
// A call that failed because it took too long may still be carried out later:
// what is stored is then not known until it has been read.
func System(opts ...SystemOption) Limited {
	o := systemOptions{timeout: defaultTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	return &system{newSystem(o)}
}

// system checks names and gives errors their outer form; the platform's own
// backend does the rest.
type system struct{ platform Limited }

func (s *system) Get(ctx context.Context, service, user string) (string, error) {
	if err := checkName(service, user); err != nil {
		return "", wrap("get", service, user, err)
	}
	secret, err := s.platform.Get(ctx, service, user)
	return secret, wrap("get", service, user, err)
}

func (s *system) Set(ctx context.Context, service, user, secret string) error {
	if err := checkName(service, user); err != nil {
		return wrap("set", service, user, err)
	}
	if limit := s.ItemLimit(service, user); limit > 0 && len(secret) > limit {
		return wrap("set", service, user, tooLarge(len(secret), limit))
	}
	return wrap("set", service, user, s.platform.Set(ctx, service, user, secret))
}

func (s *system) Delete(ctx context.Context, service, user string) error {
	if err := checkName(service, user); err != nil {
		return wrap("delete", service, user, err)
	}
	return wrap("delete", service, user, s.platform.Delete(ctx, service, user))
}

func (s *system) ItemLimit(service, user string) int { return s.platform.ItemLimit(service, user) }

// checkName refuses what some platform would take for something else: security(1)
// on macOS reads its commands line by line, and D-Bus takes only UTF-8.
func checkName(service, user string) error {
	for _, n := range []struct{ what, name string }{{"service", service}, {"user", user}} {
		switch {
		case n.name == "":
			return fmt.Errorf("the %s is empty", n.what)
		case !utf8.ValidString(n.name):
			return fmt.Errorf("the %s is not UTF-8", n.what)
		case strings.IndexFunc(n.name, unicode.IsControl) >= 0:
			return fmt.Errorf("the %s has a control character", n.what)
		case len(n.name) > maxName:
			return fmt.Errorf("the %s is longer than %d bytes", n.what, maxName)
		}
	}
	return nil
}

// maxName is what Credential Manager takes of either name (its user name has
// at most 513 characters), the smallest limit of all.
const maxName = 500

func tooLarge(size, limit int) error {
	return &advice{fmt.Errorf("%w: %d bytes, and this keyring takes %d for an item of this name", persistence.ErrTooLarge, size, limit),
		keepInFile}
}

const keepInFile = "Keep the data in an encrypted file, and only its key in the keyring."

// advice is an error with the remedy that is to stand in the outer error.
type advice struct {
	err    error
	remedy string
}

func (a *advice) Error() string { return a.err.Error() }
func (a *advice) Unwrap() error { return a.err }

func unavailable(what, remedy string) error {
	return &advice{fmt.Errorf("%w: %s", persistence.ErrUnavailable, what), remedy}
}

func locked(what, remedy string) error {
	return &advice{fmt.Errorf("%w: %s", persistence.ErrKeyringLocked, what), remedy}
}

// wrap makes err the *persistence.Error of an operation on an item. The cause
// and remedy of one that is such an error already are kept.
func wrap(op, service, user string, err error) error {
	if err == nil {
		return nil
	}
	out := &persistence.Error{Op: op, Backend: "keyring", Location: location(service, user), Err: err}
	var inner *persistence.Error
	var a *advice
	switch {
	case errors.As(err, &inner):
		out.Remedy = inner.Remedy
	case errors.As(err, &a):
		out.Remedy = a.remedy
	}
	if inner != nil && err == error(inner) {
		out.Err = inner.Err
	}
	return out
}

// note adds to an error what it means for the stored value.
func note(err error, text string) error {
	if inner, ok := err.(*persistence.Error); ok {
		out := *inner
		out.Err = note(inner.Err, text)
		return &out
	}
	return fmt.Errorf("%w (%s)", err, text)
}

func location(service, user string) string { return service + "/" + user }
