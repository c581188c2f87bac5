package persistence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/opaque"
)

// FileLock is a lock on a file of its own, for goroutines and for processes on
// one machine. It has the methods of a [NamedLocker], for backends to use, and
// stores nothing itself. A second file, with the suffix ".turn", makes waiting
// roughly first come, first served.
//
// FileLocks of one file exclude each other, in one process too. All of them
// together keep at most one goroutine and one thread waiting in the system,
// however many calls were given up.
//
// The files are made when they are first needed, mode 0600 whatever the umask
// is (on Windows with an access list that admits the user, the system and
// administrators), with missing folders, and never deleted. Deleting them by hand while
// a program runs may let two programs in at once. On Windows nobody else can read the
// first byte of a file whose lock is held (LockFileEx), so a backup may report it. The
// lock is not promised to hold on NFS. On Unix, Lock refuses a lock file that is not a
// regular file of this user, that others can write, or that lies in a folder where
// another user can rename or delete files. One that others can read is closed to them,
// as they could hold the lock.
//
// Every program that writes one file must use the same lock file. Backends that
// are given no lock use one beside the file that they really write: where their
// path is a symbolic link, beside its target.
type FileLock struct {
	lock *filelock.Lock

	writing chan struct{} // full while a Hold runs its function

	mu    sync.Mutex
	grant *grant // the Lock that is not released yet, if there is one
}

// grant is a lock that is held.
type grant struct {
	users sync.WaitGroup // Holds that rely on it
}

// NewFileLock returns the lock of the file at path. It does no I/O.
func NewFileLock(path string) *FileLock {
	return &FileLock{lock: filelock.New(path, true), writing: make(chan struct{}, 1)}
}

// Path returns the path of the lock file.
func (l *FileLock) Path() string { return l.lock.Path() }

// String returns "lock file" and the path.
func (l *FileLock) String() string { return lockBackend + " " + l.Path() }

// Format prints what String returns, for every verb.
func (l *FileLock) Format(s fmt.State, verb rune) { opaque.Format(s, verb, l.String()) }

// LogValue returns what String returns.
func (l *FileLock) LogValue() slog.Value { return slog.StringValue(l.String()) }

// Lock waits for the lock until ctx ends, and then fails with [ErrLockTimeout],
// which is also the context's error and names the process that holds the lock, if
// it is known. The lock is not reentrant. unlock first waits for every
// [FileLock.Hold] that relies on the lock, then releases it. Further calls of
// unlock do nothing.
//
// Where the file system has no locks the error is [ErrUnavailable].
func (l *FileLock) Lock(ctx context.Context) (unlock func() error, err error) {
	held := locksOf(ctx)
	if held.reenter(l) {
		return func() error { return nil }, nil
	}
	release, err := l.lock.Lock(ctx)
	if err != nil {
		return nil, lockError(l.lock.Path(), err)
	}
	g := new(grant)
	l.mu.Lock()
	l.grant = g
	l.mu.Unlock()
	held.add(l)
	var once sync.Once
	return func() error {
		var err error
		once.Do(func() {
			held.remove(l)
			l.mu.Lock()
			l.grant = nil // nobody relies on it from now on
			l.mu.Unlock()
			g.users.Wait()
			err = release()
		})
		if err != nil {
			return lockErrorOp("unlock", l.lock.Path(), err)
		}
		return nil
	}, nil
}

// LockName is [FileLock.Lock] for the lock of that name: a further file, whose
// name ends in a hash of the name and which is never deleted.
func (l *FileLock) LockName(ctx context.Context, name string) (unlock func() error, err error) {
	named := filelock.New(layout.NamedLock(l.lock.Path(), name), false)
	release, err := named.Lock(ctx)
	if err != nil {
		return nil, lockError(named.Path(), err)
	}
	return func() error {
		if err := release(); err != nil {
			return lockErrorOp("unlock", named.Path(), err)
		}
		return nil
	}, nil
}

// Hold runs fn while this FileLock holds its lock. If a [FileLock.Lock] of it has
// not been released yet, Hold relies on that one, whose unlock then waits for fn.
// Otherwise Hold locks and unlocks. So a backend that writes in Hold is safe
// alone, and also when its caller has locked it to load, merge and save.
//
// Of all functions, in all processes, only one runs at a time. Until fn begins,
// Hold waits no longer than ctx, and fails as Lock does. Then it returns what fn
// returns, or else the error of unlocking. fn must not call Hold, Lock or an
// unlock.
func (l *FileLock) Hold(ctx context.Context, fn func() error) (err error) {
	if owner := locksOf(ctx).owner(l); owner != nil && owner != l {
		return owner.Hold(ctx, fn)
	}
	if g := l.join(); g != nil {
		defer g.users.Done()
	} else {
		unlock, lockErr := l.Lock(ctx)
		if lockErr != nil {
			return lockErr
		}
		defer func() {
			if unlockErr := unlock(); err == nil {
				err = unlockErr
			}
		}()
	}
	select {
	case l.writing <- struct{}{}:
	case <-ctx.Done():
		return lockError(l.lock.Path(), l.lock.Timeout(ctx))
	}
	defer func() { <-l.writing }()
	return fn()
}

// join makes the release of the lock wait for users.Done, if it is held now.
func (l *FileLock) join() *grant {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grant != nil {
		l.grant.users.Add(1)
	}
	return l.grant
}

// lockBackend is the [Error.Backend] of a lock.
const lockBackend = "lock file"

func lockError(path string, err error) error { return lockErrorOp("lock", path, err) }

func lockErrorOp(op, path string, err error) error {
	e := &Error{Op: op, Backend: lockBackend, Location: path, Err: err}
	var timeout *filelock.TimeoutError
	switch {
	case errors.As(err, &timeout):
		e.Err = fmt.Errorf("%w: %w", ErrLockTimeout, err)
		if !errors.Is(err, context.Canceled) {
			e.Remedy = "Another program is using the stored data. Try again, or end that program."
		}
	case errors.Is(err, filelock.ErrNoLocks):
		e.Err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		e.Remedy = "Use a folder on a local disk."
	case Remedy(err) != "":
		e.Remedy = Remedy(err)
	case errors.Is(err, fs.ErrPermission):
		e.Remedy = "Make sure that you can write the folder and that its files belong to you."
	}
	return e
}
