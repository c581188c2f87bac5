package persistence

import (
	"errors"
	"log/slog"
	"time"
)

// DefaultTimeout bounds every operation of a [Cache] whose context has no
// deadline of its own.
const DefaultTimeout = 30 * time.Second

// Option is a setting of a [Cache] or a [Partitioned].
type Option func(*settings) error

// settings are what the options set.
type settings struct {
	lockFile *FileLock // nil: the backend's own lock, or none
	strict   bool
	logger   *slog.Logger // nil: slog.Default()
	timeout  time.Duration
	now      func() time.Time
	logged   *kinds
	unsaved  int // bytes
	onError  func(error)
	follow   []Neighbour
}

// set returns what the options set.
func set(opts []Option) (settings, error) {
	s := settings{timeout: DefaultTimeout, now: time.Now, logged: new(kinds), unsaved: DefaultMaxUnsaved}
	for _, o := range opts {
		if o == nil {
			continue
		}
		if err := o(&s); err != nil {
			return settings{}, err
		}
	}
	return s, nil
}

// WithLockFile makes the writers of a cache take turns by a lock on the file
// at path, which is made when it is first needed and never deleted. Every
// process that shares the cache must name the same file. It should lie beside
// the data, never in a folder that others can write. A Persistence that is a
// [Locker] needs no lock file: its own lock is used, because its other writers
// use that one.
func WithLockFile(path string) Option {
	return func(s *settings) error {
		if path == "" {
			return errors.New("the lock file's path is empty")
		}
		s.lockFile = NewFileLock(path)
		return nil
	}
}

// WithStrict makes every storage error fail the call, and so the sign-in, that
// met it. Without it a sign-in that succeeded stays one; see [Cache].
func WithStrict() Option {
	return func(s *settings) error { s.strict = true; return nil }
}

// WithLogger sets where storage errors are logged. The default is
// slog.Default(), asked at each record. No record holds a secret.
//
// A kind of error is logged when it comes, again when it comes after it had
// worked, and while it lasts every five minutes, with the number of those that
// were not logged. One that comes and goes all the time is logged five times and
// then once a minute.
func WithLogger(l *slog.Logger) Option {
	return func(s *settings) error { s.logger = l; return nil }
}

// WithTimeout sets how long an operation may wait whose context has no
// deadline, instead of [DefaultTimeout].
func WithTimeout(d time.Duration) Option {
	return func(s *settings) error {
		if d <= 0 {
			return errors.New("the timeout is not positive")
		}
		s.timeout = d
		return nil
	}
}

// WithMaxUnsaved sets how many bytes of tokens that could not be stored a
// [Partitioned] keeps at most, instead of [DefaultMaxUnsaved]. An account takes
// about twice the size of its stored cache. A [Cache] has no such
// limit: it keeps those of each MSAL client for as long as that client lives.
func WithMaxUnsaved(bytes int) Option {
	return func(s *settings) error {
		if bytes <= 0 {
			return errors.New("the number of bytes is not positive")
		}
		s.unsaved = bytes
		return nil
	}
}

// WithOnError sets a function that is called with each storage error of Replace
// and Export, whether it is logged or not and whether MSAL is told or not: to
// count them for metrics. It is called by many goroutines at once, and while its
// caller waits, so it must be quick. No error holds a secret.
func WithOnError(f func(error)) Option {
	return func(s *settings) error { s.onError = f; return nil }
}
