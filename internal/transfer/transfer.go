// Package transfer moves data from one store to another without losing any of it at any
// point. It combines the data with what the other store has, saves that, reads it back
// and compares it, and only then deletes the data in the first store.
//
// Every step is conditional on a revision. So a transfer needs no lock around it, but
// may run under one. If a process is killed in between, the data is in one of the two
// stores or in both.
package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Store is what a transfer needs of either side: a persistence.Versioned.
type Store interface {
	LoadRevision(ctx context.Context) (data []byte, rev string, err error)
	SaveIf(ctx context.Context, data []byte, rev string) (newRev string, err error)
	DeleteIf(ctx context.Context, rev string) error
}

// Transfer is a transfer under way.
type Transfer struct {
	From, To Store
	// NotFound and Conflict are the errors that say that nothing is stored, and
	// that something has changed since its revision was read.
	NotFound, Conflict error
	// Combine decides what To shall hold.
	Combine func(Held) (Next, error)
	// BeforeDelete is called when To has the data, before From loses it, with the
	// revision in From. If it fails, nothing is deleted. It may be nil.
	BeforeDelete func(ctx context.Context, rev string) error

	copied []byte // what an earlier try took from From; nil for nothing yet
}

// Held is what the two stores hold.
type Held struct {
	From []byte
	Rev  string // of From
	To   []byte // nil if To holds nothing
	// Copied is what an earlier try took from From, nil if there was none. From has
	// changed since, so Copied is the base of a three-way merge.
	Copied []byte
}

// Next is what a transfer does next.
type Next struct {
	Data    []byte // for To
	Changed bool   // false if To holds that already
	Keep    bool   // delete nothing in From
}

// Done is what a transfer has done.
type Done struct {
	Data    []byte // what To holds, and its revision
	ToRev   string
	FromRev string // of what was moved; "" if From held nothing
}

// SourceError is an error of loading from From. To has not been changed.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }

// ReadBackError says that To does not return what was saved there. Nothing has been
// deleted.
type ReadBackError struct{ Err error }

func (e *ReadBackError) Error() string {
	return fmt.Sprintf("what was saved does not read back the same, and nothing was deleted: %v", e.Err)
}
func (e *ReadBackError) Unwrap() error { return e.Err }

// Try moves once. If the error matches Conflict, one of the stores has changed
// meanwhile, and the caller tries again with the same Transfer.
func (t *Transfer) Try(ctx context.Context) (Done, error) {
	data, rev, err := t.From.LoadRevision(ctx)
	if errors.Is(err, t.NotFound) {
		return Done{}, nil
	}
	if err != nil {
		return Done{}, &SourceError{err}
	}
	stored, there, err := t.To.LoadRevision(ctx)
	if errors.Is(err, t.NotFound) {
		stored, there = nil, ""
	} else if err != nil {
		return Done{}, err
	} else if stored == nil {
		stored = []byte{}
	}
	next, err := t.Combine(Held{From: data, Rev: rev, To: stored, Copied: t.copied})
	if err != nil {
		return Done{}, err
	}
	if next.Changed {
		if there, err = t.save(ctx, next.Data, there); err != nil {
			return Done{}, err
		}
	}
	done := Done{Data: next.Data, ToRev: there, FromRev: rev}
	if t.copied = data; data == nil {
		t.copied = []byte{}
	}
	if next.Keep {
		return done, nil
	}
	if t.BeforeDelete != nil {
		if err := t.BeforeDelete(ctx, rev); err != nil {
			return Done{}, err
		}
	}
	return done, t.From.DeleteIf(ctx, rev)
}

// save saves data in To and reads it back.
func (t *Transfer) save(ctx context.Context, data []byte, there string) (rev string, err error) {
	if rev, err = t.To.SaveIf(ctx, data, there); err != nil {
		return "", err
	}
	back, now, err := t.To.LoadRevision(ctx)
	switch {
	case err != nil:
		return "", &ReadBackError{err}
	case now != rev: // changed meanwhile: begin again
		return "", t.Conflict
	case !bytes.Equal(back, data):
		return "", &ReadBackError{errors.New("other bytes came back")}
	}
	return rev, nil
}
