package encrypted

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// This file holds the one rule of when a key is gone. Only then is the error
// ErrKeyMissing, and only then can the file be set aside for it. That a source says
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
		return verdict{because: "the key was stored on another machine, in another container or by another user, or this machine was renamed since"}
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

// keyNotFound is the error of unlock where the source has no such key, before the
// rule is applied. It has no class.
type keyNotFound struct {
	cause  error
	source KeySource
	header *header
}

// Error returns the source's own words.
func (e *keyNotFound) Error() string { return e.cause.Error() }

// absenceOf returns what is known of a key that was not found.
func (f *File) absenceOf(e *keyNotFound) absence {
	_, stores := e.source.(KeyDeleter)
	here := f.machine().origin(e.header.source, refID(e.header.ref))
	return absence{
		source: e.header.source,
		stores: stores,
		origin: compare(e.header.file.origin, here.origin),
		boot:   compare(e.header.file.boot, here.boot),
		userns: compare(e.header.file.userns, here.userns),
	}
}

// resolve replaces a keyNotFound in err by an error with a class: ErrKeyMissing
// where the rule says that the key is gone, else ErrUnavailable. Where that
// depends on a new key, it makes one if it may write, and otherwise assumes that
// the source would keep it. The call must not hold the lock.
func (f *File) resolve(ctx context.Context, mayWrite bool, err error) error {
	var notFound *keyNotFound
	if !errors.As(err, &notFound) {
		return err
	}
	if !mayWrite || !f.absenceOf(notFound).judge().probe {
		return f.verdict(ctx, notFound, false)
	}
	var result error
	lockErr := f.hold(ctx, func() error {
		result = f.verdict(ctx, notFound, true)
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

// verdict applies the rule. With probe it holds the lock, and may make a key for
// the next file. That key is recorded in the ledger first, and used or collected
// like any other.
func (f *File) verdict(ctx context.Context, e *keyNotFound, probe bool) error {
	v := f.absenceOf(e).judge()
	if v.probe && probe {
		id := f.pendingID(ctx, e.source, e.header)
		if _, err := f.makeKey(ctx, e.source, id); err != nil {
			return f.uncertain(e, "the key source does not keep a new key either ("+err.Error()+")")
		}
		f.mu.Lock()
		f.nextKey, f.keysToCollect = e.header.source+"/"+id, true
		f.mu.Unlock()
		if _, err := e.source.Key(ctx, e.header.ref); !errors.Is(err, persistence.ErrKeyMissing) {
			return f.uncertain(e, "the key source does not give the same answer twice")
		}
	}
	if !v.gone && !v.probe {
		return f.uncertain(e, v.because)
	}
	return remedy.Errorf("Sign in again. If the key comes back, the file opens again.",
		"%w: %q has no key with the id %s", persistence.ErrKeyMissing, e.header.source, refID(e.header.ref))
}

// mayBeSetAside returns an error if the file may be sound: its key was not found
// and is not certainly gone, or its source cannot be asked now. It runs under the
// lock.
func (f *File) mayBeSetAside(ctx context.Context) error {
	_, _, err := f.store.LoadRevision(ctx)
	var notFound *keyNotFound
	switch {
	case errors.As(err, &notFound):
		err = f.verdict(ctx, notFound, true)
		if errors.Is(err, persistence.ErrKeyMissing) {
			return nil
		}
		return err
	case errors.Is(err, persistence.ErrKeyringLocked), errors.Is(err, persistence.ErrUnavailable):
		return err
	}
	return nil
}

// uncertain is the error for a key that the source does not have and that may
// exist elsewhere.
func (f *File) uncertain(notFound *keyNotFound, because string) error {
	wayOut := "Otherwise sign out in the program, or run `tokenkeep clear`, and sign in again."
	if isPlainName(f.name) {
		wayOut = "Otherwise sign out in the program, or run `tokenkeep clear " + f.name + "`, and sign in again."
	}
	first := "Run the program where it stored the tokens."
	if _, stores := notFound.source.(KeyDeleter); !stores {
		first = persistence.Remedy(notFound.cause)
	}
	return remedy.Errorf(strings.TrimSpace(first+" "+wayOut), "%w: the file's key is not there, and it may exist elsewhere: %s", persistence.ErrUnavailable, because)
}

// isPlainName reports whether a shell takes name as it stands.
func isPlainName(name string) bool {
	return consists(name, 255, valueWithoutTilde, valueWithoutTilde) && name[0] != '-'
}

const valueWithoutTilde = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + digits + "-._"
