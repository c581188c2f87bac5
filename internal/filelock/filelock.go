// Package filelock is a lock between processes: a file that is locked with
// flock, or LockFileEx on Windows, as long as its holder lives and needs it.
//
// The file is made once, closed to other users, and never deleted: a program that
// deletes a lock file which others have open lets two of them in at once. If
// somebody else deletes it, the next holder notices that its path no longer names
// the file that it locked, and starts again.
//
// Waiting is blocking, not polling, so that a free lock is taken at once. A
// second file, the turnstile, makes it fair: everybody takes the turnstile
// first, waits for the lock and then releases the turnstile. A holder that has
// just released the lock finds the next one already waiting for it, and queues
// behind.
//
// A blocked flock cannot be interrupted. So in each process at most one
// goroutine waits in it for one file, however many [Lock] values there are. The
// others queue in memory, first come, first served. A caller whose context ends
// leaves that goroutine behind, and the next caller takes it over. If it gets the
// lock and has no caller, it releases it at once.
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
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/within"
)

// ErrNoLocks: the file system of the lock file cannot lock.
var ErrNoLocks = errors.New("this file system does not support locks")

// TimeoutError: the context ended before the lock was free.
type TimeoutError struct {
	PID   int       // of the process that took the lock last; 0 if it is not known
	Since time.Time // when it took the lock
	Open  bool      // another program keeps the lock file open and does not share it; on Windows only
	Err   error     // the context's error
}

func (e *TimeoutError) Error() string {
	if errors.Is(e.Err, context.Canceled) { // it was not the holder that ended the wait
		return e.Err.Error()
	}
	who := "its holder is not known"
	if e.Open {
		who = "another program keeps the lock file open and does not share it, as a backup or a virus scanner does"
	} else if e.PID != 0 {
		who = fmt.Sprintf("process %d has held it since %s", e.PID, e.Since.Format(time.RFC3339))
		if e.PID == os.Getpid() {
			who += " (this very process)"
		}
	}
	return who + ": " + e.Err.Error()
}

func (e *TimeoutError) Unwrap() error { return e.Err }

// Lock is a lock between processes, and between the goroutines of this one.
// Locks of one file exclude each other, in one process too, however they were
// made and however their paths are written.
type Lock struct {
	path string
	fair bool

	alone *Lock // for tests: set to share nothing with other Locks
}

// New returns the lock of the file at path. With fair it has a turnstile at
// path.turn. New does no I/O.
func New(path string, fair bool) *Lock { return &Lock{path: path, fair: fair} }

// Path returns the path of the lock file.
func (l *Lock) Path() string { return l.path }

// Lock waits for the lock until ctx ends, then fails with a [TimeoutError].
// Missing folders are made, mode 0700. The first call of unlock releases the
// lock, every further one does nothing.
func (l *Lock) Lock(ctx context.Context) (unlock func() error, err error) {
	if ctx.Err() != nil {
		return nil, l.Timeout(ctx)
	}
	q, err := l.queue()
	if err != nil {
		return nil, err
	}
	select {
	case q.head <- struct{}{}:
	case <-ctx.Done():
		q.leave()
		return nil, l.Timeout(ctx)
	}
	held, err := q.acquire(ctx, l)
	if err != nil {
		<-q.head
		q.leave()
		return nil, err
	}
	var once sync.Once
	return func() error {
		var err error
		once.Do(func() {
			err = release(held)
			<-q.head
			q.leave()
		})
		return err
	}, nil
}

// Timeout returns the error of a wait for l that ctx ended.
func (l *Lock) Timeout(ctx context.Context) error { return l.timeout(ctx, false) }

func (l *Lock) timeout(ctx context.Context, open bool) error {
	pid, since, _ := Holder(l.path)
	return &TimeoutError{PID: pid, Since: since, Open: open, Err: ctx.Err()}
}

// queue is where the goroutines of this process wait for one lock file.
type queue struct {
	key   key
	users int // guarded by queues.mu; at 0 the queue is forgotten

	head chan struct{} // full while a goroutine has the lock or is the one that waits for it

	mu     sync.Mutex
	waiter *waiter // the goroutine in a blocking flock, if there is one
}

// key names a lock file, whatever path leads to its folder.
type key struct {
	dir   securefile.ID
	name  string
	fair  bool
	alone *Lock
}

// queues are those in use.
var queues struct {
	mu    sync.Mutex
	byKey map[key]*queue
}

// queue returns the queue of l's file. The caller must leave it in the end. queue makes
// a missing folder.
func (l *Lock) queue() (*queue, error) {
	dir, err := securefile.MakeDir(filepath.Dir(l.path))
	if err != nil {
		return nil, err
	}
	k := key{dir, filepath.Base(l.path), l.fair, l.alone}
	queues.mu.Lock()
	defer queues.mu.Unlock()
	q := queues.byKey[k]
	if q == nil {
		if queues.byKey == nil {
			queues.byKey = map[key]*queue{}
		}
		q = &queue{key: k, head: make(chan struct{}, 1)}
		queues.byKey[k] = q
	}
	q.users++
	return q, nil
}

func (q *queue) join() {
	queues.mu.Lock()
	defer queues.mu.Unlock()
	q.users++
}

func (q *queue) leave() {
	queues.mu.Lock()
	defer queues.mu.Unlock()
	if q.users--; q.users == 0 {
		delete(queues.byKey, q.key)
	}
}

// waiter is a goroutine that waits in a blocking flock.
type waiter struct {
	attempt   *attempt
	hasCaller bool        // guarded by queue.mu
	done      chan result // has room for one
}

type result struct {
	held *flock.Flock
	err  error
}

// acquire takes the lock for the caller at the head of q. There is one call at a
// time.
func (q *queue) acquire(ctx context.Context, l *Lock) (*flock.Flock, error) {
	q.mu.Lock()
	w := q.waiter
	if w != nil && w.attempt.outdated() {
		w, q.waiter = nil, nil // it waits for a file that has no name any more
	}
	if w != nil {
		w.hasCaller = true
	}
	q.mu.Unlock()

	if w == nil {
		a := l.newAttempt()
		if held, err := a.tryLock(); held != nil || err != nil {
			return held, err
		}
		w = &waiter{attempt: a, hasCaller: true, done: make(chan result, 1)}
		q.mu.Lock()
		q.waiter = w
		q.mu.Unlock()
		q.join()
		go q.wait(w)
	}
	select {
	case r := <-w.done:
		return r.held, r.err
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case r := <-w.done: // in the last moment
		return r.held, r.err
	default:
		w.hasCaller = false
		return nil, l.timeout(ctx, w.attempt.keptOpen.Load())
	}
}

// wait takes the lock for the caller that w has by then.
func (q *queue) wait(w *waiter) {
	defer q.leave()
	hasCaller := func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return w.hasCaller
	}
	for {
		held, err := w.attempt.waitLock(hasCaller)
		q.mu.Lock()
		if w.hasCaller && held == nil && err == nil { // the caller came just now
			q.mu.Unlock()
			continue
		}
		if q.waiter == w {
			q.waiter = nil
		}
		if w.hasCaller {
			w.done <- result{held, err}
		} else if held != nil {
			release(held)
		}
		q.mu.Unlock()
		return
	}
}

// attempt is one try to take the lock. It may have the turnstile already.
type attempt struct {
	path       string
	main, turn *flock.Flock // turn is nil for a lock without one

	keptOpen atomic.Bool // by another program, when it was last tried to open a file

	mu  sync.Mutex
	on  string        // the path of the file that a blocking flock waits for, or ""
	was securefile.ID // the file that on named when the wait began
}

func (l *Lock) newAttempt() *attempt {
	a := &attempt{path: l.path, main: newFlock(l.path)}
	if l.fair {
		a.turn = newFlock(layout.QueueOf(l.path))
	}
	return a
}

func newFlock(path string) *flock.Flock {
	return flock.New(path, flock.SetFlag(os.O_RDWR|openFlags))
}

// maxRestarts bounds how often a lock file may vanish while it is being locked.
const maxRestarts = 100

// errReplaced: the lock file was deleted or replaced while it was being locked.
var errReplaced = errors.New("the lock file was replaced")

// tryLock takes the lock if it is free. If it is not, tryLock returns neither a
// lock nor an error, and may keep the turnstile.
func (a *attempt) tryLock() (*flock.Flock, error) {
	return a.lock(a.tryFlock, func() bool { return true })
}

// waitLock waits for the lock. When the lock file has been replaced, or another
// program keeps it open, and there is no caller any more, it makes no new file and
// returns neither a lock nor an error.
func (a *attempt) waitLock(hasCaller func() bool) (*flock.Flock, error) {
	held, err := a.lock(func(f *flock.Flock) (bool, error) { return a.waitFlock(f, hasCaller) }, hasCaller)
	if held == nil {
		a.releaseTurn()
	}
	return held, err
}

// lock takes the lock by take, again and again while the lock file is replaced
// and goOn allows it. It keeps the turnstile only if take did not get the lock.
func (a *attempt) lock(take takeFunc, goOn func() bool) (*flock.Flock, error) {
	for range maxRestarts {
		ok, err := a.lockOnce(take)
		switch {
		case ok:
			a.releaseTurn()
			return a.main, nil
		case err == nil:
			return nil, nil
		case !errors.Is(err, errReplaced):
			a.releaseTurn()
			return nil, err
		case !goOn():
			a.releaseTurn()
			return nil, nil
		}
	}
	a.releaseTurn()
	return nil, fmt.Errorf("%s: another program keeps replacing the lock file", a.path)
}

// takeFunc locks a file, or reports that it is locked by somebody else.
type takeFunc func(*flock.Flock) (ok bool, err error)

// lockOnce makes the files, then takes first the turnstile and then the lock.
func (a *attempt) lockOnce(take takeFunc) (ok bool, err error) {
	files := []*flock.Flock{a.turn, a.main}
	if a.turn == nil {
		files = files[1:]
	}
	// All files come first: a wait must not end at a file that is not ours.
	for _, f := range files {
		if err := makeFile(f.Path()); err != nil {
			return false, err
		}
	}
	was, err := idOf(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, errReplaced
	}
	if err != nil {
		return false, err
	}
	for _, f := range files {
		if ok, err := take(f); !ok || err != nil {
			return false, err
		}
	}
	if err := verifyHolder(a.path, a.main, was); err != nil {
		release(a.main)
		return false, err
	}
	return true, nil
}

func makeFile(path string) error {
	err := securefile.MakeEmpty(path)
	if errors.Is(err, fs.ErrNotExist) { // the folder went away during a wait
		if _, err := securefile.MakeDir(filepath.Dir(path)); err != nil {
			return err
		}
		err = securefile.MakeEmpty(path)
	}
	return err
}

func (a *attempt) releaseTurn() {
	if a.turn != nil {
		release(a.turn)
	}
}

// tryFlock locks f unless somebody else has it locked, or keeps it open.
func (a *attempt) tryFlock(f *flock.Flock) (ok bool, err error) {
	err = retry(func() error {
		ok, err = f.TryLock()
		return err
	})
	a.keptOpen.Store(keptOpen(err))
	if keptOpen(err) {
		return false, nil
	}
	return ok, reason(f, err)
}

// The pauses between attempts to open a lock file that another program keeps open:
// nothing tells when it closes it.
const (
	firstPause = time.Millisecond
	maxPause   = 50 * time.Millisecond
)

// waitFlock locks f and notes meanwhile which file it waits for. If another program
// keeps f open and there is no caller any more, it gives up without an error.
func (a *attempt) waitFlock(f *flock.Flock, hasCaller func() bool) (bool, error) {
	if ok, err := a.tryFlock(f); ok || err != nil {
		return ok, err
	}
	if id, err := securefile.IDOf(f.Path()); err == nil {
		a.setWaiting(f.Path(), id)
		defer a.setWaiting("", securefile.ID{})
	}
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := retry(f.Lock)
		a.keptOpen.Store(keptOpen(err))
		if !keptOpen(err) {
			return err == nil, reason(f, err)
		}
		if !hasCaller() {
			return false, nil
		}
		within.Sleep(context.Background(), pause)
	}
}

func (a *attempt) setWaiting(on string, was securefile.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.on, a.was = on, was
}

// outdated reports whether the file that a waits for has been deleted or
// replaced. If so, a lets others pass the turnstile.
func (a *attempt) outdated() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.on == "" {
		return false
	}
	id, err := securefile.IDOf(a.on)
	if !errors.Is(err, fs.ErrNotExist) && (err != nil || id == a.was) {
		return false
	}
	if a.on == a.path {
		a.releaseTurn()
	}
	return true
}

// reason returns why f could not be locked, from the error of the lock.
func reason(f *flock.Flock, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return errReplaced
	case noLocks(err):
		return fmt.Errorf("%w: %w", ErrNoLocks, err)
	}
	// If the file must not be used, that is a better reason.
	var insecure *securefile.Error
	if opened, openErr := securefile.Open(atOnce, f.Path(), os.O_RDONLY); openErr == nil {
		opened.Close()
	} else if errors.As(openErr, &insecure) {
		return insecure
	}
	return securefile.Explain(f.Path(), err)
}

// release unlocks f. If that fails, the file stays open and locked until it is
// garbage-collected: a Flock cannot be closed in another way.
func release(f *flock.Flock) error { return retry(f.Unlock) }

// retry repeats what a signal interrupts.
func retry(do func() error) error {
	for {
		if err := do(); err == nil || !interrupted(err) {
			return err
		}
	}
}

// atOnce is the context of an open that waits for no other program: it has ended.
// As long as a lock file is locked, this process has it open for writing, and
// nobody can keep it open without sharing it.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// What tells files apart; tests replace it.
var (
	idOf     = securefile.IDOf
	sameFile = os.SameFile
)

// verifyHolder checks that path still names the locked file and that its type,
// owner and mode are acceptable, then records this process as the holder. was is
// what path named before that file was opened. verifyHolder fails with errReplaced
// if path names another file or none.
func verifyHolder(path string, locked *flock.Flock, was securefile.ID) error {
	f, err := securefile.Open(atOnce, path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) || keptOpen(err) {
		return errReplaced
	}
	if err != nil {
		return err
	}
	defer f.Close()
	there, err := f.Stat()
	if err != nil {
		return err
	}
	mine, err := locked.Stat()
	if err != nil {
		return err
	}
	if !sameFile(mine, there) {
		return errReplaced
	}
	// On Windows these are 64 bits, which two files on ReFS may share, and a Flock
	// does not give away its handle, which has the 128 that they do not share.
	if is, err := idOf(path); err != nil || is != was {
		return errReplaced
	}
	// The record is for diagnosis only, so a full disk does not matter.
	_, _ = f.WriteAt(holderLine(os.Getpid(), time.Now()), holderAt)
	return nil
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
// still has it, or lives, is not known. ok is false if the file does not say.
func Holder(path string) (pid int, since time.Time, ok bool) {
	f, err := securefile.Open(atOnce, path, os.O_RDONLY)
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
	f, err := securefile.Open(atOnce, path, os.O_RDONLY)
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

// WriteNote replaces the note in the lock file, durably. note is one line of at most 512
// bytes; "" removes it. The caller has the lock.
func WriteNote(path, note string) error {
	if len(note) > NoteSize || strings.Contains(note, "\n") {
		return errors.New("filelock: not a note: it is too long or has more than one line")
	}
	f, err := securefile.Open(atOnce, path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	// One write, so that a kill leaves the old note or the new one; what comes after
	// the first newline does not count.
	if _, err := f.WriteAt([]byte(note+"\n"), noteAt); err != nil {
		return err
	}
	return securefile.Flush(f)
}
