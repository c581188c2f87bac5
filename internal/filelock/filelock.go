// Package filelock is a lock between processes: a file that is locked with
// flock, or LockFileEx on Windows, as long as its holder lives and wants it.
//
// The file is made once, mode 0600, and never deleted: whoever deletes a lock
// file that others have open lets two of them in at once. Should somebody else
// delete it, the next holder notices that its path no longer names the file
// that it locked, and starts over.
//
// Waiting is blocking, not polling, so that a free lock is taken at once. A
// second file, the turnstile, makes it fair: everybody takes the turnstile
// first, waits for the lock and then lets the turnstile go. Who has just let
// the lock go finds the next one already waiting for it, and queues up behind.
//
// A blocked flock cannot be interrupted. So at most one goroutine of a [Lock]
// waits in it; a caller whose context ends leaves it there, and the next caller
// adopts it. If it gets the lock and nobody wants it, it lets it go at once.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// ErrNoLocks: the file system of the lock file cannot lock.
var ErrNoLocks = errors.New("this file system does not support locks")

// TimeoutError: the context ended before the lock was to be had.
type TimeoutError struct {
	PID   int       // of the process that took the lock last; 0 if it is not known
	Since time.Time // when it took the lock
	Err   error     // the context's error
}

func (e *TimeoutError) Error() string {
	who := "its holder is not known"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d has held it since %s", e.PID, e.Since.Format(time.RFC3339))
		if e.PID == os.Getpid() {
			who += " (this very process)"
		}
	}
	return who + ": " + e.Err.Error()
}

func (e *TimeoutError) Unwrap() error { return e.Err }

// Lock is a lock between processes, and between the goroutines of this one.
// Two Locks of one path exclude each other, in one process too.
type Lock struct {
	path string
	turn string // the turnstile's path, or "" for a lock without one

	queue chan struct{} // full while a goroutine of this process has the lock or waits at the head for it

	mu     sync.Mutex
	waiter *waiter // the goroutine in a blocking flock, if there is one
}

// New returns the lock of the file at path. With fair it has a turnstile at
// path.turn. New does no I/O.
func New(path string, fair bool) *Lock {
	l := &Lock{path: path, queue: make(chan struct{}, 1)}
	if fair {
		l.turn = layout.QueueOf(path)
	}
	return l
}

// Path returns the path of the lock file.
func (l *Lock) Path() string { return l.path }

// Lock waits for the lock until ctx ends, then fails with a [TimeoutError].
// Missing folders are made, mode 0700. The first call of unlock lets the lock
// go, every further one does nothing.
func (l *Lock) Lock(ctx context.Context) (unlock func() error, err error) {
	if ctx.Err() != nil {
		return nil, l.Timeout(ctx)
	}
	select {
	case l.queue <- struct{}{}:
	case <-ctx.Done():
		return nil, l.Timeout(ctx)
	}
	held, err := l.acquire(ctx)
	if err != nil {
		<-l.queue
		return nil, err
	}
	var once sync.Once
	return func() error {
		var err error
		once.Do(func() {
			err = letGo(held)
			<-l.queue
		})
		return err
	}, nil
}

// Timeout returns the error of a wait for l that ctx ended.
func (l *Lock) Timeout(ctx context.Context) error {
	pid, since, _ := Holder(l.path)
	return &TimeoutError{PID: pid, Since: since, Err: ctx.Err()}
}

// waiter is the goroutine that waits in a blocking flock.
type waiter struct {
	wanted bool        // a caller waits for it; guarded by Lock.mu
	done   chan result // has room for one
}

type result struct {
	held *flock.Flock
	err  error
}

// acquire takes the lock. There is one call at a time.
func (l *Lock) acquire(ctx context.Context) (*flock.Flock, error) {
	l.mu.Lock()
	w := l.waiter
	if w != nil {
		w.wanted = true
	}
	l.mu.Unlock()

	if w == nil {
		a := l.newAttempt()
		if held, err := a.take(nil); held != nil || err != nil {
			return held, err
		}
		w = &waiter{wanted: true, done: make(chan result, 1)}
		l.mu.Lock()
		l.waiter = w
		l.mu.Unlock()
		go l.wait(w, a)
	}
	select {
	case r := <-w.done:
		return r.held, r.err
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case r := <-w.done: // in the last moment
		return r.held, r.err
	default:
		w.wanted = false
		return nil, l.Timeout(ctx)
	}
}

func (l *Lock) wait(w *waiter, a *attempt) {
	wanted := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return w.wanted
	}
	for {
		held, err := a.take(wanted)
		l.mu.Lock()
		if w.wanted && held == nil && err == nil { // adopted just now
			l.mu.Unlock()
			continue
		}
		l.waiter = nil
		if w.wanted {
			w.done <- result{held, err}
		} else if held != nil {
			letGo(held)
		}
		l.mu.Unlock()
		return
	}
}

// attempt is one try to take the lock. It may have the turnstile already.
type attempt struct {
	path       string
	main, turn *flock.Flock
}

func (l *Lock) newAttempt() *attempt {
	a := &attempt{path: l.path, main: newFlock(l.path)}
	if l.turn != "" {
		a.turn = newFlock(l.turn)
	}
	return a
}

func newFlock(path string) *flock.Flock {
	return flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|openFlags), flock.SetPermissions(0o600))
}

// maxRestarts bounds how often a lock file may vanish while it is being locked.
const maxRestarts = 100

// take takes the lock and returns it held. Without wanted it does not wait: if
// the lock is not free it returns neither lock nor error, and may keep the
// turnstile. With wanted it waits, but makes no new file in the place of one that
// vanished if nobody wants the lock any more; then too it returns neither.
func (a *attempt) take(wanted func() bool) (_ *flock.Flock, err error) {
	blocking, ok := wanted != nil, false
	defer func() {
		if a.turn != nil && (ok || err != nil) {
			letGo(a.turn)
		}
	}()
	if err := a.prepare(blocking); err != nil {
		return nil, err
	}
	for range maxRestarts {
		if a.turn != nil {
			if ok, err := lock(a.turn, blocking); !ok || err != nil {
				return nil, err
			}
		}
		if ok, err := lock(a.main, blocking); !ok || err != nil {
			return nil, err
		}
		if ok, err = sign(a.path, a.main); err != nil {
			letGo(a.main)
			return nil, err
		}
		if ok {
			return a.main, nil
		}
		letGo(a.main)
		if blocking && !wanted() {
			if a.turn != nil {
				letGo(a.turn)
			}
			return nil, nil
		}
	}
	return nil, fmt.Errorf("%s: the lock file is being replaced all the time", a.path)
}

// prepare sees to the folder and, before a long wait, that the files are ours:
// a foreign one would be noticed only when its lock is had.
func (a *attempt) prepare(blocking bool) error {
	dir := filepath.Dir(a.path)
	err := securefile.CheckDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = securefile.MkdirAll(dir); err == nil {
			err = securefile.CheckDir(dir)
		}
	}
	if err != nil || !blocking {
		return err
	}
	for _, f := range []*flock.Flock{a.main, a.turn} {
		if f == nil {
			continue
		}
		f, err := securefile.Open(f.Path(), os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// lock locks f if it is not locked yet.
func lock(f *flock.Flock, blocking bool) (ok bool, err error) {
	for {
		if blocking {
			err = f.Lock()
			ok = err == nil
		} else {
			ok, err = f.TryLock()
		}
		if err == nil || !interrupted(err) {
			break
		}
	}
	if err == nil {
		return ok, nil
	}
	if noLocks(err) {
		return false, fmt.Errorf("%w: %w", ErrNoLocks, err)
	}
	// If the file is not to be used, that is a better reason.
	var insecure *securefile.Error
	if opened, openErr := securefile.Open(f.Path(), os.O_RDONLY); openErr == nil {
		opened.Close()
	} else if errors.As(openErr, &insecure) {
		return false, insecure
	}
	return false, err
}

// letGo unlocks f. If that fails, the file stays open and locked until it is
// garbage: a Flock cannot be closed in another way.
func letGo(f *flock.Flock) error {
	for {
		if err := f.Unlock(); err == nil || !interrupted(err) {
			return err
		}
	}
}

// sign checks that path still names the file that is locked, and that it is a
// proper one, and writes there who has it. It returns false if path names
// another file or none.
func sign(path string, locked *flock.Flock) (bool, error) {
	f, err := securefile.Open(path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	there, err := f.Stat()
	if err != nil {
		return false, err
	}
	mine, err := locked.Stat()
	if err != nil {
		return false, err
	}
	if !os.SameFile(mine, there) {
		return false, nil
	}
	// For diagnosis only: a full disk does not keep the lock from us.
	_, _ = f.WriteAt(holderLine(os.Getpid(), time.Now()), holderAt)
	return true, nil
}

// The lock file: one byte that is never written, as Windows locks it against
// everybody; the line of the holder, of fixed length; the note and a newline.
const (
	holderAt  = 1
	holderLen = 10 + 1 + len("2006-01-02T15:04:05Z") + 1
	noteAt    = holderAt + int64(holderLen)
	NoteSize  = 512
)

func holderLine(pid int, since time.Time) []byte {
	return fmt.Appendf(nil, "%10d %s\n", pid, since.UTC().Format("2006-01-02T15:04:05Z"))
}

// Holder returns the process that took the lock last, and when. Whether it
// still has it, or lives, is not known. ok is false if nothing can be told.
func Holder(path string) (pid int, since time.Time, ok bool) {
	f, err := securefile.Open(path, os.O_RDONLY)
	if err != nil {
		return 0, time.Time{}, false
	}
	defer f.Close()
	var line [holderLen]byte
	if _, err := f.ReadAt(line[:], holderAt); err != nil {
		return 0, time.Time{}, false
	}
	pidText, sinceText, _ := strings.Cut(strings.TrimSpace(string(line[:])), " ")
	pid, err = strconv.Atoi(pidText)
	if err != nil || pid <= 0 {
		return 0, time.Time{}, false
	}
	since, err = time.Parse(time.RFC3339, sinceText)
	if err != nil {
		return 0, time.Time{}, false
	}
	return pid, since, true
}

// ReadNote returns the note in the lock file, "" if there is none. The caller
// has the lock.
func ReadNote(path string) (string, error) {
	f, err := securefile.Open(path, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, NoteSize+1)
	n, err := f.ReadAt(buf, noteAt)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	note, _, whole := strings.Cut(string(buf[:n]), "\n")
	if !whole {
		return "", nil
	}
	return note, nil
}

// WriteNote keeps note, one line of at most 512 bytes, in the lock file,
// durably, in the place of the one before; "" for none. The caller has the lock.
func WriteNote(path, note string) error {
	if len(note) > NoteSize || strings.Contains(note, "\n") {
		return errors.New("filelock: not a note: it is too long or has more than one line")
	}
	f, err := securefile.Open(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	// One write, so that a kill leaves the old note or the new one; what is
	// behind the first newline does not count.
	if _, err := f.WriteAt([]byte(note+"\n"), noteAt); err != nil {
		return err
	}
	return f.Sync()
}
