package persistence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// FileLock is a lock on a file of its own, for goroutines and for processes on
// one machine; it is a [NamedLocker]. A second file beside it, with ".turn"
// behind its name, makes waiting fair: first come, about, first served.
//
// The files are made when they are first needed, mode 0600, with missing
// folders, and never deleted; deleting them by hand while a program runs may let
// two of them in at once. The lock is not promised to hold on NFS. On Unix, a
// lock file is refused that is not a regular file of this user, or that lies in
// a folder where another user can rename or delete files.
type FileLock struct {
	lock *filelock.Lock

	writing chan struct{} // full while a Hold runs its function

	mu     sync.Mutex
	grant  *grant                    // the Lock that is not released yet, if there is one
	byName map[string]*filelock.Lock // one for each name, for good
}

// grant is a lock that is held.
type grant struct {
	users sync.WaitGroup // Holds that rely on it
}

// NewFileLock returns the lock of the file at path. It does no I/O.
func NewFileLock(path string) *FileLock {
	return &FileLock{lock: filelock.New(path, true), writing: make(chan struct{}, 1), byName: map[string]*filelock.Lock{}}
}

// Path returns the path of the lock file.
func (l *FileLock) Path() string { return l.lock.Path() }

// Lock waits for the lock until ctx ends, and then fails with [ErrLockTimeout],
// which is also the context's error and names the process that holds the lock,
// as far as it is known. The lock is not reentrant. unlock lets it go, after any
// [FileLock.Hold] that relies on it; calling it again does nothing.
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
// name ends in a hash of the name. Every name costs a file and a little memory,
// for good.
func (l *FileLock) LockName(ctx context.Context, name string) (unlock func() error, err error) {
	l.mu.Lock()
	named := l.byName[name]
	if named == nil {
		named = filelock.New(layout.NamedLock(l.lock.Path(), name), false)
		l.byName[name] = named
	}
	l.mu.Unlock()
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

// Hold runs fn while this FileLock holds its lock: if a [FileLock.Lock] of it is
// not released yet, under that one, whose release then waits for fn; else under
// a lock of its own. So a backend whose writes run in Hold is safe alone, and
// also under a caller that has locked it to load, merge and save.
//
// No two functions run at once, in any process. Until fn begins Hold waits no
// longer than ctx, and fails like Lock; then it returns what fn returns. fn must
// not call Hold, Lock or an unlock.
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

func lockError(path string, err error) error { return lockErrorOp("lock", path, err) }

func lockErrorOp(op, path string, err error) error {
	e := &Error{Op: op, Backend: "lock file", Location: path, Err: err}
	var (
		timeout  *filelock.TimeoutError
		insecure *securefile.Error
	)
	switch {
	case errors.As(err, &timeout):
		e.Err = fmt.Errorf("%w: %w", ErrLockTimeout, err)
		e.Remedy = "Another program is at work on what is stored. Try again, or end that program."
	case errors.Is(err, filelock.ErrNoLocks):
		e.Err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		e.Remedy = "Use a folder on a local disk."
	case errors.As(err, &insecure):
		e.Remedy = insecure.Remedy
	case errors.Is(err, fs.ErrPermission):
		e.Remedy = "Make sure that you can write this folder, and that its files belong to you."
	}
	return e
}
