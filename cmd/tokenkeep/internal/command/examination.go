package command

import "context"

// check is one thing that the doctor looks at. Its id is part of the JSON.
type check struct {
	id    string
	title string
	run   func(context.Context, *examination) outcome
	here  func(*call) bool // nil: everywhere
}

// The states of a check.
const (
	statusOK      = "ok"
	statusNote    = "note"    // worth to know; nothing is broken
	statusProblem = "problem" // to be repaired
)

// outcome is what a check found.
type outcome struct {
	ID         string    `json:"id"`
	Title      string    `json:"title"`
	Status     string    `json:"status"`
	Summary    string    `json:"summary"` // one line
	DurationMS float64   `json:"durationMs"`
	Findings   []finding `json:"findings"`
	Details    []string  `json:"details"` // what is well
}

// finding is one thing that is not well, or worth to know.
type finding struct {
	ID      string `json:"id"` // of its kind, such as "keyring.locked"
	Status  string `json:"status"`
	Cache   string `json:"cache,omitempty"`
	What    string `json:"what"`              // what is wrong, and why
	Remedy  string `json:"remedy,omitempty"`  // what helps, in words
	Command string `json:"command,omitempty"` // what repairs it, to be pasted
}

func (o *outcome) note(f finding) { f.Status = statusNote; o.add(f) }

func (o *outcome) problem(f finding) { f.Status = statusProblem; o.add(f) }

func (o *outcome) add(f finding) {
	o.Findings = append(o.Findings, f)
	if o.Status != statusProblem {
		o.Status = f.Status
	}
}

// examination is one run of the doctor.
type examination struct {
	*call
	session session
	caches  func() ([]*files, error)
	keyring func(context.Context) keyringState // asked once
}

// once makes f do its work at the first call only.
func once[T any](f func() (T, error)) func() (T, error) {
	var done bool
	var value T
	var err error
	return func() (T, error) {
		if !done {
			value, err = f()
			done = true
		}
		return value, err
	}
}
