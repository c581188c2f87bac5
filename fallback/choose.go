package fallback

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Candidate is one way to keep a cache.
type Candidate struct {
	// Name says what it is, in one word.
	Name string
	// Open returns the backend once it has shown that it works here and now.
	// It leaves nothing behind when it fails.
	Open func(ctx context.Context) (persistence.Persistence, error)
	// Timeout bounds Open, beside the context. 0 means that the context alone
	// does: for a candidate that asks a person.
	Timeout time.Duration
}

// Refusal says why a candidate was not chosen.
type Refusal struct {
	Candidate string // the candidate's Name
	Err       error
}

// Reason returns why: the cause, without the operations and the places on the
// way to it, and without the remedy.
func (r Refusal) Reason() string {
	cause := r.Err
	for {
		var e *persistence.Error
		ok := errors.As(cause, &e)
		if !ok || e.Err == nil {
			return cause.Error()
		}
		cause = e.Err
	}
}

// Remedy returns what would help, as a sentence for a person, or "".
func (r Refusal) Remedy() string {
	var e *persistence.Error
	if errors.As(r.Err, &e) {
		return e.Remedy
	}
	return ""
}

// Choice is the candidate that was chosen.
type Choice struct {
	Candidate   string // its Name
	Persistence persistence.Persistence
	Refusals    []Refusal // those that come before it, in order
}

// NoneError says that no candidate works: each with its reason and its remedy.
// It matches, by [errors.Is], what any of the refusals matches.
type NoneError struct {
	Refusals []Refusal
}

// Error returns a line for each refusal.
func (e *NoneError) Error() string {
	if len(e.Refusals) == 0 {
		return "tokenkeep: there is no place to keep the tokens: no candidate was given"
	}
	var b strings.Builder
	b.WriteString("tokenkeep: there is no safe place to keep the tokens")
	for _, r := range e.Refusals {
		b.WriteString("\n  " + r.Candidate + ": " + r.Reason())
		if remedy := r.Remedy(); remedy != "" {
			b.WriteString(". " + remedy)
		}
	}
	return b.String()
}

// Unwrap returns every refusal's error.
func (e *NoneError) Unwrap() []error {
	errs := make([]error, len(e.Refusals))
	for i, r := range e.Refusals {
		errs[i] = r.Err
	}
	return errs
}

// Choose opens the candidates in order and returns the first that works, with
// the refusals of those before it. If none works it fails with a [*NoneError].
// If ctx ends, it stops there.
func Choose(ctx context.Context, candidates ...Candidate) (Choice, error) {
	var refusals []Refusal
	for _, c := range candidates {
		p, err := open(ctx, c)
		if err == nil {
			return Choice{c.Name, p, refusals}, nil
		}
		refusals = append(refusals, Refusal{c.Name, err})
		if ctx.Err() != nil {
			break
		}
	}
	return Choice{}, &NoneError{refusals}
}

func open(ctx context.Context, c Candidate) (persistence.Persistence, error) {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	return c.Open(ctx)
}
