package encrypted

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// This file holds the one rule of when a key is certainly gone. Only then is the
// error ErrKeyMissing, and a program may set the file aside. That a source says
// "not there" is not enough: it may be another user's keyring, another machine's,
// a container's, or one that keeps nothing.

// match is how a hash in a header compares with this machine's.
type match int

const (
	unknown match = iota // the header or this machine has none
	same
	different
)

func compare(header, here string) match {
	switch {
	case header == "" || here == "":
		return unknown
	case header == here:
		return same
	}
	return different
}

// absence is what is known when a source says that it has no key of a reference.
type absence struct {
	source string // the word of the source
	stores bool   // whether it stores the keys that it makes
	origin match  // machine and user
	boot   match  // boot of the machine, and user; for source kernel only
	userns match  // user namespace; for source kernel only
}

// verdict says what follows from an absence.
type verdict struct {
	gone    bool   // the key is certainly gone
	probe   bool   // it is gone if the source now keeps a new key and returns it
	because string // why it is not certain
}

// judge is the rule.
func (a absence) judge() verdict {
	switch {
	case !a.stores:
		return verdict{because: "somebody else keeps this key"}
	case a.origin == different:
		return verdict{because: "the key was stored on another machine or by another user"}
	case a.source != kernelSource && a.origin == same:
		return verdict{probe: true}
	case a.source != kernelSource:
		return verdict{because: "it is not known on which machine the key was stored"}

	// The kernel's keyrings end with the boot, and every user namespace has its own.
	case a.boot == different && a.origin == same:
		return verdict{gone: true}
	case a.boot == different:
		return verdict{because: "it is not known whether this machine was restarted or the key was stored on another one"}
	case a.boot == unknown:
		return verdict{because: "it is not known since which boot the key is stored"}
	case a.userns != same:
		return verdict{because: "the key was stored in another user namespace, as a container has one"}
	}
	return verdict{probe: true}
}

// absenceOf returns what is known where source has no key for h.
func (f *File) absenceOf(source KeySource, h *header) absence {
	_, stores := source.(KeyDeleter)
	here := f.machine().origin(h.source, refID(h.ref))
	return absence{
		source: h.source,
		stores: stores,
		origin: compare(h.file.origin, here.origin),
		boot:   compare(h.file.boot, here.boot),
		userns: compare(h.file.userns, here.userns),
	}
}

// keyNotFound is what unlock returns where the source has no such key, before
// the rule was applied. It has no class.
type keyNotFound struct {
	cause    error
	external bool // the source keeps no keys of its own making
}

// Error returns the source's own words.
func (e *keyNotFound) Error() string { return e.cause.Error() }

// resolve replaces a keyNotFound in err by an error with a class: ErrKeyMissing
// if the key is certainly gone, else ErrUnavailable. The lock must not be held in
// a [persistence.FileLock.Hold] of this call.
//
// To be certain it may have to make a new key. That is the key of the next file:
// it is recorded in the ledger first, and used or collected like any other.
func (f *File) resolve(ctx context.Context, err error) error {
	var notFound *keyNotFound
	if !errors.As(err, &notFound) {
		return err
	}
	var result error
	lockErr := f.hold(ctx, func() error {
		result = f.resolveLocked(ctx, notFound)
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("making sure that the key is gone: %w", context.Cause(ctx))
	case lockErr != nil:
		return f.uncertain(notFound, "this cannot be checked without the lock ("+located(lockErr).Error()+")")
	}
	return result
}

func (f *File) resolveLocked(ctx context.Context, notFound *keyNotFound) error {
	h, err := f.header()
	if err != nil {
		return err
	}
	source := f.keySource()
	if h.source != source.Source() {
		return f.uncertain(notFound, "another process has changed the file")
	}
	v := f.absenceOf(source, h).judge()
	if v.probe {
		id := f.pendingID(source, h)
		if _, err := f.makeKey(ctx, source, id); err != nil {
			return f.uncertain(notFound, "the key source does not keep a new key either ("+err.Error()+")")
		}
		f.mu.Lock()
		f.nextKey, f.keysToCollect = h.source+"/"+id, true
		f.mu.Unlock()
		if _, err := source.Key(ctx, h.ref); !errors.Is(err, persistence.ErrKeyMissing) {
			return f.uncertain(notFound, "the key source does not give the same answer twice")
		}
		v.gone = true
	}
	if !v.gone {
		return f.uncertain(notFound, v.because)
	}
	return remedy.Errorf("Sign in again. If the key comes back, the file opens again.",
		"%w: %q has no key with the id %s", persistence.ErrKeyMissing, h.source, refID(h.ref))
}

// uncertain is the error for a key that the source does not have and that may
// exist elsewhere.
func (f *File) uncertain(notFound *keyNotFound, because string) error {
	wayOut := "Otherwise sign out in the program, or run `tokenkeep clear`, and sign in again."
	if isPlainName(f.name) {
		wayOut = "Otherwise sign out in the program, or run `tokenkeep clear " + f.name + "`, and sign in again."
	}
	r := "Run the program where it stored the tokens. "
	if notFound.external {
		r = persistence.Remedy(notFound.cause) + " "
	}
	return remedy.Errorf(r+wayOut, "%w: the file's key is not there, and it may exist elsewhere: %s", persistence.ErrUnavailable, because)
}

// isPlainName reports whether a shell takes name as it stands.
func isPlainName(name string) bool {
	return consists(name, 255, valueWithoutTilde, valueWithoutTilde) && name[0] != '-'
}

const valueWithoutTilde = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + digits + "-._"
