package persistence

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// report logs what is not returned, once per kind.
func (s *settings) report(d Description, what, msg string, err error) {
	kind := what
	for _, k := range []error{ErrNotFound, ErrUnavailable, ErrKeyringLocked, ErrCorrupt, ErrWrongKey, ErrKeyMissing,
		ErrUnsupportedVersion, ErrTooLarge, ErrConflict, ErrLockTimeout, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, k) {
			kind += ": " + k.Error()
			break
		}
	}
	if !s.logged.first(kind) {
		return
	}
	l := s.logger
	if l == nil {
		l = slog.Default()
	}
	attrs := []any{"backend", d.Backend, "location", d.Location}
	if err != nil {
		attrs = append(attrs, "error", err.Error())
	}
	l.Warn(msg, attrs...)
}

// kinds are the kinds of trouble that were logged.
type kinds struct {
	mu   sync.Mutex
	seen map[string]bool
}

// first reports whether this is the first of that kind.
func (k *kinds) first(kind string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seen[kind] {
		return false
	}
	if k.seen == nil {
		k.seen = map[string]bool{}
	}
	k.seen[kind] = true
	return true
}
