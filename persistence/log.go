package persistence

import (
	"context"
	"errors"
	"log/slog"
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
	if !s.logged.First(kind) {
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
