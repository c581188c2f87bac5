package keyring

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// minItem is the smallest item limit that New works with, in bytes.
const minItem = 256

// New returns a Persistence that keeps its data in k, in an item of that service
// and user. It does no I/O. The data may be any bytes. What it returns is also a
// persistence.NamedLocker, ready for persistence.New, and safe for concurrent
// use.
//
// The writers of the item take turns with lock, which all processes share: every
// program that writes the item must use the same lock file. The item's revision
// is copied to a small file beside the lock file, so that asking for it usually
// costs no call of the keyring.
//
// If k is a [Limited], data that is too large for one item is split over
// several: a manifest under the given user, and parts whose user is the given
// one with " part a1", " part a2" or " part b1" and so on appended. The parts of
// a new value are written beside those of the old one, then the manifest is
// switched, then the old parts are removed. So at any time, also after a crash, a
// reader finds the old value or the new one, complete; a digest in the manifest
// proves it. The next save or delete removes what a crash left over.
//
// New fails if k or lock is nil, if a name is not valid, or if an item under
// these names may have less than 256 bytes. Load returns ErrCorrupt for an item
// that is damaged or was written by another program, and ErrUnsupportedVersion
// for one of a newer version of tokenkeep, which Save and Delete do not change.
// All other errors are those of the lock and the keyring; see [System].
func New(k Keyring, service, user string, lock *persistence.FileLock) (persistence.Versioned, error) {
	limit := 0
	err := layout.CheckItem(service, user)
	switch {
	case err != nil:
	case k == nil:
		err = errors.New("the keyring is nil")
	case lock == nil:
		err = errors.New("the lock is nil")
	default:
		if l, ok := k.(Limited); ok {
			limit = max(l.ItemLimit(service, partUser(user, "b", math.MaxInt32)), 0)
		}
		if limit > 0 && limit < minItem {
			err = fmt.Errorf("items of this name may have only %d bytes; at least %d are needed", limit, minItem)
		}
	}
	if err != nil {
		return nil, wrap("open", service, user, err)
	}
	// Several items may share a lock: each has a revision file of its own.
	return &versioned{chunked{k, service, user, limit}, lock, layout.RevisionOf(lock.Path(), service+"\x00"+user)}, nil
}

// versioned is a value whose writers hold a lock, and whose revision can be read
// without the keyring.
//
// The revision is part of the value in the keyring. The file with its copy exists
// only while the copy is right: a writer removes it before it changes the keyring
// and writes it again afterwards. If a writer is killed in between, there is no
// file, and readers ask the keyring until the next save.
type versioned struct {
	value   chunked
	lock    *persistence.FileLock
	revFile string
}

var _ interface {
	persistence.Versioned
	persistence.NamedLocker
	persistence.Describer
} = (*versioned)(nil)

func (v *versioned) wrap(op string, err error) error {
	return wrap(op, v.value.service, v.value.user, err)
}

func (v *versioned) Describe() persistence.Description {
	return persistence.Description{Backend: "keyring", Location: location(v.value.service, v.value.user), Encrypted: true}
}

func (v *versioned) Lock(ctx context.Context) (func() error, error) {
	unlock, err := v.lock.Lock(ctx)
	return unlock, asKeyringError(err)
}

func (v *versioned) LockName(ctx context.Context, name string) (func() error, error) {
	unlock, err := v.lock.LockName(ctx, name)
	return unlock, asKeyringError(err)
}

// asKeyringError makes an error of the lock one of this backend. Its location
// stays the lock file.
func asKeyringError(err error) error {
	if e, ok := err.(*persistence.Error); ok {
		out := *e
		out.Backend = "keyring"
		return &out
	}
	return err
}

func (v *versioned) Revision(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", v.wrap("revision", err)
	}
	// The file is a copy: if anything is wrong with it, the keyring is asked.
	if rev, _, err := securefile.Read(ctx, v.revFile, 64); err == nil && isRevision(string(rev)) {
		return string(rev), nil
	}
	_, _, rev, err := v.value.current(ctx)
	if errors.Is(err, persistence.ErrNotFound) || errors.Is(err, persistence.ErrCorrupt) {
		return rev, nil
	}
	return rev, v.wrap("revision", err)
}

func (v *versioned) Load(ctx context.Context) ([]byte, error) {
	data, _, err := v.LoadRevision(ctx)
	return data, err
}

func (v *versioned) LoadRevision(ctx context.Context) ([]byte, string, error) {
	data, rev, err := v.value.load(ctx)
	if err == nil || errors.Is(err, persistence.ErrNotFound) {
		// The file is wrong if the user deleted the item or restored an old
		// keyring. If it is that of a save a moment ago, removing it costs only
		// some calls of the keyring.
		if noted, _, fileErr := securefile.Read(ctx, v.revFile, 64); fileErr == nil && string(noted) != rev {
			securefile.Remove(ctx, v.revFile)
		}
	}
	return data, rev, v.wrap("load", err)
}

func (v *versioned) Save(ctx context.Context, data []byte) error {
	_, err := v.saveWhen(ctx, data, unconditional)
	return err
}

func (v *versioned) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	return v.saveWhen(ctx, data, revisionIs(rev))
}

func (v *versioned) Delete(ctx context.Context) error { return v.deleteWhen(ctx, unconditional) }

func (v *versioned) DeleteIf(ctx context.Context, rev string) error {
	return v.deleteWhen(ctx, revisionIs(rev))
}

// revisionIs is the precondition that the stored revision is want.
func revisionIs(want string) func(string) error {
	return func(rev string) error {
		if rev != want {
			return persistence.ErrConflict
		}
		return nil
	}
}

func (v *versioned) saveWhen(ctx context.Context, data []byte, precondition func(string) error) (rev string, err error) {
	err = v.underLock(ctx, "save", func() error {
		rev, err = v.value.save(ctx, data, v.removingCopy(ctx, precondition))
		if err == nil {
			// The value is stored. Without the file, readers ask the keyring.
			securefile.Replace(ctx, v.revFile, []byte(rev))
		}
		return err
	})
	return rev, err
}

func (v *versioned) deleteWhen(ctx context.Context, precondition func(string) error) error {
	return v.underLock(ctx, "delete", func() error { return v.value.remove(ctx, v.removingCopy(ctx, precondition)) })
}

// removingCopy is precondition that, if it holds, also removes the copy of the
// revision.
func (v *versioned) removingCopy(ctx context.Context, precondition func(string) error) func(string) error {
	return func(rev string) error {
		if err := precondition(rev); err != nil {
			return err
		}
		return securefile.Remove(ctx, v.revFile)
	}
}

// underLock runs fn under the lock.
func (v *versioned) underLock(ctx context.Context, op string, fn func() error) error {
	var failed error
	err := v.lock.Hold(ctx, func() error {
		failed = fn()
		return nil
	})
	if failed != nil {
		return v.wrap(op, failed)
	}
	return asKeyringError(err)
}
