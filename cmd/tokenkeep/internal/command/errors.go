package command

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// misuse is a call that cannot be right, whatever is stored.
type misuse struct{ what, remedy string }

func (m *misuse) Error() string { return m.what }

// refusal is what this program will not or cannot do.
type refusal struct {
	what, remedy string
	err          error // its class, or nil
}

func (r *refusal) Error() string { return r.what }
func (r *refusal) Unwrap() error { return r.err }

// explain says what is wrong, as one sentence, and what helps, with a space
// before it, or "".
func explain(err error) (what, remedy string) {
	what = err.Error()
	var none *fallback.NoneError
	var wrong *misuse
	var no *refusal
	var placed *persistence.Error
	switch {
	case errors.As(err, &none):
		what = "there is no place to keep the tokens"
		for i, r := range none.Refusals {
			what += map[bool]string{true: ": ", false: "; "}[i == 0] + r.Candidate + ": " + r.Reason()
			if i == 0 {
				remedy = r.Remedy()
			}
		}
	case errors.As(err, &wrong):
		remedy = wrong.remedy
	case errors.As(err, &no):
		remedy = no.remedy
	case errors.As(err, &placed):
		remedy = placed.Remedy
		bare := *placed
		bare.Remedy = ""
		// What stands around it stays.
		what = strings.Replace(what, placed.Error(), strings.TrimPrefix(bare.Error(), "tokenkeep: "), 1)
	}
	what = strings.TrimSuffix(what, ".") + "."
	if remedy != "" {
		remedy = " " + remedy
	}
	return what, remedy
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

// cause is err without the operations and places on the way to it.
func cause(err error) string { return fallback.Refusal{Err: err}.Reason() }

func remedyOf(err error) string { return fallback.Refusal{Err: err}.Remedy() }

// timedOut says whether err is of a wait that was given up.
func timedOut(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
