package persistence

import (
	"errors"
	"testing"

	"github.com/fsnotify/fsnotify"
)

// WithoutNotifications makes the system tell of no changes until the test ends,
// as where a user has no inotify instances left.
func WithoutNotifications(t testing.TB) {
	before := newNotifier
	t.Cleanup(func() { newNotifier = before })
	newNotifier = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }
}
