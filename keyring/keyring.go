package keyring

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Keyring is a keyring of small items, each named by a service (the program or
// cache it belongs to) and a user. [System] is the operating system's; package
// [github.com/tokenkeep/tokenkeep/keyring/keyringtest] has one for tests.
//
// A service and a user are 1 to 500 bytes of UTF-8 without control characters: some
// platform would misread others, and keyrings here refuse them everywhere. An item of
// another program with an empty user is read as a [ForeignItem] on Linux.
//
// Get and Delete of what is not there return an error that is
// persistence.ErrNotFound. A Set that succeeded is seen by every later Get, of
// any process; one that failed has left the old secret or the new one, whole.
// Every method is safe for concurrent use and returns once its context has
// ended. No error holds a secret; one may hold a [Situation].
//
// A Keyring that wraps another one returns that one's errors, or errors that wrap them:
// what [System] does not find may be in a part of the keyring that is locked or that this
// session does not have, and its error carries what [Keys] needs to see that.
type Keyring interface {
	Get(ctx context.Context, service, user string) (string, error)
	Set(ctx context.Context, service, user, secret string) error
	Delete(ctx context.Context, service, user string) error
}

// Limited is a [Keyring] that knows how large a secret it takes.
type Limited interface {
	Keyring
	// ItemLimit returns the size in bytes of the largest secret that Set takes
	// under that name; 0 means that there is no such limit.
	ItemLimit(service, user string) int
}

// Lister is a [Keyring] that can list its items. The Secret Service on Linux and the
// BSDs can, the Linux kernel's keyring, and Credential Manager on Windows. The Keychain
// of macOS cannot: what Apple has for it asks for the password of each locked keychain,
// and leaves out keychains that it cannot open, so that an empty list would say nothing.
type Lister interface {
	Keyring
	// List returns the users of the items of a service, each once, sorted; none, and
	// no error, where there is no item. What other programs have stored under that
	// service is listed too; of the credentials on Windows only those that have the
	// user in the target and as the user name, as Set makes them. No secret is read.
	List(ctx context.Context, service string) (users []string, err error)
}

// An Option is a setting of [System].
type Option func(*settings)

type settings struct {
	mayPrompt bool
	timeout   time.Duration
}

// WithPrompt lets the keyring ask the user something, most often for the
// password that unlocks it, and lets a call wait for the answer. The wait ends
// with the context, or after two minutes if the context has no deadline; then
// the question is withdrawn. Use it in programs with somebody in front of the
// screen.
//
// Without it nothing is asked: a call that needs an answer fails with
// ErrKeyringLocked at once. (macOS and Windows decide for themselves whether
// they ask; there the option only makes calls wait longer.)
func WithPrompt() Option {
	return func(s *settings) { s.mayPrompt = true }
}

// WithTimeout sets how long a call that asks nobody may take, even if its
// context ends later. The default is 10 seconds, on macOS one minute, because the
// Keychain asks its user by itself; a keyring that works needs milliseconds. If d
// is not positive, the default stays.
func WithTimeout(d time.Duration) Option {
	return func(s *settings) {
		if d > 0 {
			s.timeout = d
		}
	}
}

// callTimeout returns how long to wait for a keyring that may prompt the user
// without telling us (macOS, Windows).
func (s settings) callTimeout(ctx context.Context) time.Duration {
	switch _, ok := ctx.Deadline(); {
	case !s.mayPrompt:
		return s.timeout
	case ok:
		return 1 << 62 // only the context counts
	}
	return promptTimeout
}

const promptTimeout = 2 * time.Minute

// defaultTimeout returns the timeout of the keyring of a system.
func defaultTimeout(goos string) time.Duration {
	if goos == "darwin" {
		return time.Minute
	}
	return 10 * time.Second
}

func newSettings(opts []Option) settings {
	s := settings{timeout: defaultTimeout(runtime.GOOS)}
	for _, opt := range opts {
		opt(&s)
	}
	return s
}

// System returns the operating system's keyring: the Secret Service (GNOME
// Keyring, KWallet, KeePassXC) on Linux and the BSDs, the Keychain on macOS,
// Credential Manager on Windows. It is a [Limited] and, but for macOS, a [Lister].
// System does no I/O. The keyring keeps nothing open between calls and needs no Close.
//
// In addition to the errors of every Keyring, its calls return
//
//   - ErrUnavailable if there is no such keyring, it does not answer within the
//     timeout (see [WithTimeout]), or this session does not have the user's; the
//     error says what is missing and what would help;
//   - ErrKeyringLocked if it is locked and nobody may be asked, or the user
//     declined;
//   - ErrTooLarge for a secret beyond the ItemLimit of [Limited];
//   - the context's error once the context has ended.
//
// [SituationOf] tells these apart in more detail. A call that failed because it
// took too long may still be carried out later: until it has been read again, it
// is not known what is stored.
func System(opts ...Option) Limited {
	platform := newSystem(newSettings(opts))
	if lister, ok := platform.(Lister); ok {
		return &systemLister{system{platform}, listing{lister}}
	}
	return &system{platform}
}

// systemLister is a system that is a Lister.
type systemLister struct {
	system
	listing
}

// listing is List of a system.
type listing struct{ lister Lister }

func (l listing) List(ctx context.Context, service string) ([]string, error) {
	if err := layout.CheckItem(service, "any"); err != nil {
		return nil, wrap("list", service, "", err)
	}
	users, err := l.lister.List(ctx, service)
	return users, wrap("list", service, "", err)
}

// system checks names and makes every error a *persistence.Error; the platform's
// own backend does the rest.
type system struct{ platform Limited }

// Keychains returns the paths of the keychains that this session searches on macOS, and
// none on other systems.
func (s *system) Keychains(ctx context.Context) ([]string, error) {
	if k, ok := s.platform.(*keychain); ok {
		paths, _, err := k.keychains(ctx, "list-keychains")
		return paths, err
	}
	return nil, nil
}

// inside returns the platform's own keyring.
func (s *system) inside() Limited { return s.platform }

// OperatingSystem marks what System returns, for tokenkeep.Open: there it is the same
// as no keyring. The keyring of Kernel, which has it too, is told by its KeySource.
func (*system) OperatingSystem() {}

func (s *system) Get(ctx context.Context, service, user string) (string, error) {
	if err := layout.CheckItem(service, user); err != nil {
		return "", wrap("get", service, user, err)
	}
	secret, err := s.platform.Get(ctx, service, user)
	if errors.Is(err, persistence.ErrNotFound) {
		err = &absent{s.platform, err}
	}
	return secret, wrap("get", service, user, err)
}

func (s *system) Set(ctx context.Context, service, user, secret string) error {
	if err := layout.CheckItem(service, user); err != nil {
		return wrap("set", service, user, err)
	}
	if limit := s.ItemLimit(service, user); limit > 0 && len(secret) > limit {
		return wrap("set", service, user, tooLarge(len(secret), limit))
	}
	return wrap("set", service, user, s.platform.Set(ctx, service, user, secret))
}

func (s *system) Delete(ctx context.Context, service, user string) error {
	if err := layout.CheckItem(service, user); err != nil {
		return wrap("delete", service, user, err)
	}
	return wrap("delete", service, user, s.platform.Delete(ctx, service, user))
}

func (s *system) ItemLimit(service, user string) int { return s.platform.ItemLimit(service, user) }
