package persistence

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// report logs what is not returned, and tells the observer of it. A kind of
// trouble that lasts is logged once and then every few minutes; see kinds.
func (s *settings) report(d Description, what, msg string, err error) {
	if s.onError != nil && err != nil {
		s.onError(err)
	}
	kind := what
	for _, k := range []error{ErrNotFound, ErrUnavailable, ErrKeyringLocked, ErrCorrupt, ErrWrongKey, ErrKeyMissing,
		ErrUnsupportedVersion, ErrTooLarge, ErrConflict, ErrLockTimeout, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, k) {
			kind += ": " + k.Error()
			break
		}
	}
	again, log := s.logged.add(what, kind, s.now())
	if !log {
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
	if again > 0 {
		attrs = append(attrs, "unlogged", again)
	}
	l.Warn(msg, attrs...)
}

// worked notes that what report is told of as what has worked.
func (s *settings) worked(what string) { s.logged.worked(what) }

// kinds are the kinds of trouble that were logged. Each is logged when it comes,
// when it comes again after it has worked, and where it lasts every sayAgain. If
// it comes and goes all the time, as when one account's data is damaged and the
// others' is not, it is logged sayAtOnce times, and then once in each sayLess.
type kinds struct {
	trouble atomic.Bool // there is a kind that has not worked since, and may
	mu      sync.Mutex
	of      map[string]*kind
}

type kind struct {
	what     string
	worked   bool      // since it was logged
	at       time.Time // when it was logged
	unlogged int       // how often it has come since
	credit   int       // how many lines it may take before it must wait
	earned   time.Time // when the credit last grew
}

// recovers are the kinds of trouble that end when something works: worked is called
// for them. The others are single events.
var recovers = map[string]bool{"replace": true, "export": true, "unsaved": true, "lease": true, "watch": true}

const (
	sayAgain  = 5 * time.Minute
	sayLess   = time.Minute
	sayAtOnce = 5
)

// add notes that a kind of trouble has come. It reports whether that is to be
// logged, and how often it has come since it was logged last.
func (k *kinds) add(what, name string, now time.Time) (unlogged int, log bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	of := k.of[name]
	if of == nil {
		of = &kind{what: what, worked: true, credit: sayAtOnce, earned: now}
		if k.of == nil {
			k.of = map[string]*kind{}
		}
		k.of[name] = of
	}
	k.trouble.Store(k.trouble.Load() || recovers[what])
	if n := int(now.Sub(of.earned) / sayLess); n > 0 {
		of.credit = min(of.credit+n, sayAtOnce)
		of.earned = of.earned.Add(time.Duration(n) * sayLess)
	}
	if of.credit == 0 || !of.worked && now.Sub(of.at) < sayAgain {
		of.unlogged++
		return 0, false
	}
	unlogged = of.unlogged
	of.worked, of.at, of.unlogged = false, now, 0
	of.credit--
	return unlogged, true
}

// worked notes that what has worked. It costs next to nothing where there was no
// trouble.
func (k *kinds) worked(what string) {
	if !k.trouble.Load() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	all := true
	for _, of := range k.of {
		of.worked = of.worked || of.what == what
		all = all && (of.worked || !recovers[of.what])
	}
	if all {
		k.trouble.Store(false)
	}
}
