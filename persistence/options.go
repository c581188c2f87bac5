package persistence

import (
	"errors"
	"log/slog"
	"time"
)

// DefaultTimeout bounds every operation of a [Cache] whose context has no
// deadline of its own.
const DefaultTimeout = 30 * time.Second

// Option is a setting of a [Cache], for [New].
type Option func(*Cache) error

// WithLockFile makes the writers of a cache take turns by a lock on the file
// at path, which is made when it is first needed and never deleted. Every
// process that shares the cache must name the same file, and it should lie
// beside the data, never in a folder that others can write. A Persistence that
// is a [Locker] needs none: its own lock is used, since that is the one that its
// other writers know.
func WithLockFile(path string) Option {
	return func(c *Cache) error {
		if path == "" {
			return errors.New("the lock file's path is empty")
		}
		c.lock = NewFileLock(path)
		return nil
	}
}

// WithStrict makes every storage error fail the call, and so the sign-in, that
// met it. Without it a sign-in that succeeded stays one; see [Cache].
func WithStrict() Option {
	return func(c *Cache) error { c.strict = true; return nil }
}

// WithLogger sets where storage trouble is logged. The default is
// slog.Default(), asked at each record. No record holds a secret.
func WithLogger(l *slog.Logger) Option {
	return func(c *Cache) error { c.logger = l; return nil }
}

// WithTimeout sets how long an operation may wait whose context has no
// deadline, instead of [DefaultTimeout].
func WithTimeout(d time.Duration) Option {
	return func(c *Cache) error {
		if d <= 0 {
			return errors.New("the timeout is not positive")
		}
		c.timeout = d
		return nil
	}
}
