package command

import (
	"cmp"
	"errors"
	"io/fs"
	"strings"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// misuse is the error of a command line that is wrong whatever is stored.
type misuse struct{ what, remedy string }

func (m *misuse) Error() string { return m.what }

// refusal is the error of something that this program will not or cannot do.
type refusal struct {
	what, remedy string
	err          error // its class, or nil
}

func (r *refusal) Error() string { return r.what }
func (r *refusal) Unwrap() error { return r.err }

// explain returns what is wrong, as one sentence, and what helps, or "".
func explain(err error) (what, remedy string) {
	var wrong *misuse
	var no *refusal
	var none *fallback.NoneError
	switch {
	case errors.As(err, &wrong):
		what, remedy = wrong.what, wrong.remedy
	case errors.As(err, &no):
		what, remedy = no.what, no.remedy
	case errors.As(err, &none):
		what, remedy = explainNone(none)
	default:
		what, remedy = placed(err)+persistence.Cause(err).Error(), persistence.Remedy(err)
	}
	return strings.TrimSuffix(what, ".") + ".", remedy
}

// explainNone names every candidate, and the remedy of the one that was preferred.
func explainNone(err *fallback.NoneError) (what, remedy string) {
	var reasons []string
	for _, r := range err.Refusals {
		reasons = append(reasons, r.Candidate+": "+r.Reason())
		if remedy == "" {
			remedy = r.Remedy()
		}
	}
	return "there is no place to keep the tokens: " + strings.Join(reasons, "; "), remedy
}

// operations has the words for a person of those operations of persistence.Error whose
// own word a person would not use.
var operations = map[string]string{
	"load": "read", "revision": "read", "save": "write", "delete": "remove", "check": "use", "rotate": "give a new key to",
	"list keys": "list the keys of", "key": "get a key from", "new key": "store a key in", "delete key": "delete a key from",
}

// placed returns what failed and where, to stand before the cause: the outermost
// operation and place that err names, or "" if it names none.
func placed(err error) string {
	var e *persistence.Error
	if !errors.As(err, &e) || e.Op == "" {
		return ""
	}
	return "cannot " + cmp.Or(operations[e.Op], e.Op) + " " + cmp.Or(e.Location, e.Backend, "the cache") + ": "
}

// classOf is the error's class, as -json has it.
func classOf(err error) string {
	var target *misuse
	if errors.As(err, &target) {
		return "usage"
	}
	for _, c := range []struct {
		err  error
		name string
	}{
		{persistence.ErrNotFound, "not-found"}, {persistence.ErrKeyringLocked, "locked"}, {persistence.ErrCorrupt, "corrupt"},
		{persistence.ErrWrongKey, "wrong-key"}, {persistence.ErrKeyMissing, "key-missing"},
		{persistence.ErrUnsupportedVersion, "unsupported-version"}, {persistence.ErrTooLarge, "too-large"},
		{persistence.ErrConflict, "conflict"}, {persistence.ErrLockTimeout, "lock-timeout"}, {persistence.ErrUnavailable, "unavailable"},
		{fs.ErrNotExist, "not-found"},
	} {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return "other"
}

// cause is why err happened, without the operations and places on the way to it.
func cause(err error) string { return persistence.Cause(err).Error() }
