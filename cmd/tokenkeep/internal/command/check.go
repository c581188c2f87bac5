package command

import (
	"context"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
)

// check is one thing that the doctor looks at. Its id is part of the JSON.
type check struct {
	id    string
	title string
	run   func(context.Context, *doctorRun) checkResult
	here  func(*call) bool // nil: everywhere
}

// The states of a check.
const (
	statusOK      = "ok"
	statusNote    = "note"    // worth knowing; nothing is broken
	statusProblem = "problem" // to be repaired
)

// checkResult is what a check found.
type checkResult struct {
	ID         string    `json:"id"`
	Title      string    `json:"title"`
	Status     string    `json:"status"`
	Summary    string    `json:"summary"` // one line
	DurationMS float64   `json:"durationMs"`
	Findings   []finding `json:"findings"`
	Details    []string  `json:"details"` // what is well
}

// finding is one thing that is not well, or worth knowing.
type finding struct {
	ID      string `json:"id"` // of its kind, such as "keyring.locked"
	Status  string `json:"status"`
	Cache   string `json:"cache,omitempty"`
	What    string `json:"what"`              // what is wrong, and why
	Remedy  string `json:"remedy,omitempty"`  // what helps, in words
	Command string `json:"command,omitempty"` // what repairs it, to be pasted
	// What the system has answered, as in "security find-generic-password: exit status 36".
	Codes []string `json:"codes,omitempty"`

	err error // why, or nil
}

func (o *checkResult) note(f finding) { f.Status = statusNote; o.add(f) }

func (o *checkResult) problem(f finding) { f.Status = statusProblem; o.add(f) }

func (o *checkResult) add(f finding) {
	f.Codes = rawcode.Of(f.err)
	o.Findings = append(o.Findings, f)
	if o.Status != statusProblem {
		o.Status = f.Status
	}
}

// doctorRun is one run of the doctor: what its checks share.
type doctorRun struct {
	*call
	session session
	caches  func() ([]*files, error)
	keyring func(context.Context) keyringState // asked once
}

// once returns a function that calls f at its first call only.
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
