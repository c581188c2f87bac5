package fallback

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Candidate is one way to keep a cache.
type Candidate struct {
	// Name is one word for it, such as "keyring".
	Name string
	// Open returns the backend after it has shown that it works here and now. If
	// it fails, it leaves nothing behind.
	Open func(ctx context.Context) (persistence.Persistence, error)
	// After, if it is not nil, is called before Open with the refusals of the
	// candidates before this one. If it fails, this candidate is refused with its
	// error and not opened: for one that may stand in only for what does not exist
	// here, and not for what is locked or did not answer.
	After func(refusals []Refusal) error
	// Timeout bounds Open, in addition to its context. 0 means that only the
	// context does: for a candidate that asks a person.
	Timeout time.Duration
}

// Refusal is a candidate that was not chosen, and why.
type Refusal struct {
	Candidate string // the candidate's Name
	Err       error
}

// Reason returns why the candidate was not chosen: the text of
// [persistence.Cause].
func (r Refusal) Reason() string {
	if r.Err == nil {
		return ""
	}
	return persistence.Cause(r.Err).Error()
}

// Remedy returns what would help, as [persistence.Remedy] does: sentences for a
// person, or "".
func (r Refusal) Remedy() string { return persistence.Remedy(r.Err) }

// MarshalJSON returns what the refusal says as data: "candidate", "class" as
// [persistence.ClassOf] names it, "reason" and "remedy".
func (r Refusal) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Candidate string `json:"candidate"`
		Class     string `json:"class"`
		Reason    string `json:"reason"`
		Remedy    string `json:"remedy,omitempty"`
	}{r.Candidate, persistence.ClassOf(r.Err), r.Reason(), r.Remedy()})
}

// Selected is the candidate that [Choose] chose.
type Selected struct {
	Candidate   string // its Name
	Persistence persistence.Persistence
	Refusals    []Refusal // of the candidates before it, in order
}

// NoneError says that no candidate works, and for each of them why. It matches,
// by [errors.Is] and [errors.As], what any of the refusals matches.
type NoneError struct {
	Refusals []Refusal
}

// Error returns a line that says so and one for each refusal, with its reason
// and its remedy.
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

// Unwrap returns the error of every refusal.
func (e *NoneError) Unwrap() []error {
	errs := make([]error, len(e.Refusals))
	for i, r := range e.Refusals {
		errs[i] = r.Err
	}
	return errs
}

// Choose opens the candidates in order and returns the first one that works. If
// none works it fails with a [*NoneError]. If ctx ends, it opens no further
// candidate and fails with a NoneError that has those tried so far.
func Choose(ctx context.Context, candidates ...Candidate) (Selected, error) {
	var refusals []Refusal
	for _, c := range candidates {
		p, err := open(ctx, c, refusals)
		if err == nil {
			return Selected{c.Name, p, refusals}, nil
		}
		refusals = append(refusals, Refusal{c.Name, err})
		if ctx.Err() != nil {
			break
		}
	}
	return Selected{}, &NoneError{refusals}
}

func open(ctx context.Context, c Candidate, before []Refusal) (persistence.Persistence, error) {
	if c.After != nil {
		if err := c.After(before); err != nil {
			return nil, err
		}
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	return c.Open(ctx)
}
