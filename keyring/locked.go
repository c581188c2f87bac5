package keyring

import (
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// lockedStore is a store whose writers hold a lock, and whose revision can be
// had without the keyring.
//
// The revision is part of the value in the keyring. A copy of it lies in a file
// beside the lock, and that file is there only while it is true: a writer
// removes it before it changes the keyring and writes it anew after. A writer
// that is killed in between leaves no file, and a reader that finds none asks
// the keyring; so a crash costs some needless reads, until the next save, and
// nothing else.
type lockedStore struct {
	*store
	lock    *persistence.FileLock
	revFile string
}

var _ interface {
	persistence.Versioned
	persistence.NamedLocker
	persistence.Describer
} = (*lockedStore)(nil)

func newLockedStore(s *store, lock *persistence.FileLock) *lockedStore {
	// Several items may share a lock: each has a file of its own.
	return &lockedStore{s, lock, layout.RevisionOf(lock.Path(), s.service+"\x00"+s.user)}
}

func (s *lockedStore) Lock(ctx context.Context) (func() error, error) {
	unlock, err := s.lock.Lock(ctx)
	return unlock, ofLock(err)
}

func (s *lockedStore) LockName(ctx context.Context, name string) (func() error, error) {
	unlock, err := s.lock.LockName(ctx, name)
	return unlock, ofLock(err)
}

// ofLock makes an error of the lock one of this backend. Its location stays the
// lock's file.
func ofLock(err error) error {
	if e, ok := err.(*persistence.Error); ok {
		out := *e
		out.Backend = "keyring"
		return &out
	}
	return err
}

func (s *lockedStore) Revision(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", s.wrap("revision", err)
	}
	// The file is a copy: if anything is wrong with it, the keyring knows.
	if rev, _, err := securefile.Read(s.revFile, 64); err == nil && isRevision(string(rev)) {
		return string(rev), nil
	}
	_, _, rev, err := s.current(ctx)
	if errors.Is(err, persistence.ErrNotFound) || errors.Is(err, persistence.ErrCorrupt) {
		return rev, nil
	}
	return rev, s.wrap("revision", err)
}

func (s *lockedStore) LoadRevision(ctx context.Context) ([]byte, string, error) {
	data, rev, err := s.load(ctx)
	if err == nil || errors.Is(err, persistence.ErrNotFound) {
		// A user who deletes the item, or puts an old keyring back, knows
		// nothing of the file. Should it be that of a save just now, its loss
		// costs some reads.
		if noted, _, fileErr := securefile.Read(s.revFile, 64); fileErr == nil && string(noted) != rev {
			securefile.Remove(s.revFile)
		}
	}
	return data, rev, s.wrap("load", err)
}

func (s *lockedStore) Save(ctx context.Context, data []byte) error {
	_, err := s.put(ctx, data, unconditional)
	return err
}

func (s *lockedStore) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	return s.put(ctx, data, only(rev))
}

func (s *lockedStore) Delete(ctx context.Context) error { return s.drop(ctx, unconditional) }

func (s *lockedStore) DeleteIf(ctx context.Context, rev string) error {
	return s.drop(ctx, only(rev))
}

// only is the condition that the stored revision is want.
func only(want string) func(string) error {
	return func(rev string) error {
		if rev != want {
			return persistence.ErrConflict
		}
		return nil
	}
}

func (s *lockedStore) put(ctx context.Context, data []byte, may func(string) error) (rev string, err error) {
	err = s.hold(ctx, "save", func() error {
		rev, err = s.save(ctx, data, s.forget(may))
		if err == nil {
			// The value is stored; without the file readers only ask more.
			securefile.Replace(s.revFile, []byte(rev))
		}
		return err
	})
	return rev, err
}

func (s *lockedStore) drop(ctx context.Context, may func(string) error) error {
	return s.hold(ctx, "delete", func() error { return s.remove(ctx, s.forget(may)) })
}

// forget is may, and then the end of the revision file.
func (s *lockedStore) forget(may func(string) error) func(string) error {
	return func(rev string) error {
		if err := may(rev); err != nil {
			return err
		}
		err := securefile.Remove(s.revFile)
		var insecure *securefile.Error
		if errors.As(err, &insecure) {
			return &advice{err, insecure.Remedy()}
		}
		return err
	}
}

// hold runs fn under the lock.
func (s *lockedStore) hold(ctx context.Context, op string, fn func() error) error {
	var failed error
	err := s.lock.Hold(ctx, func() error {
		failed = fn()
		return nil
	})
	if failed != nil {
		return s.wrap(op, failed)
	}
	return ofLock(err)
}
