//go:build linux || darwin

package interop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/neighbour"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// peerLock is the other programs' lock: a file that is there while somebody writes.
// MSAL Python and Node take the lock by making the file, MSAL.NET and MSAL Go by
// flock. This one does both: the file is locked before it gets its name, and loses
// its name before it is unlocked. So all of them wait for it, and it never lies there
// unlocked, which would cost MSAL Python five seconds for each write.
type peerLock struct {
	path   string
	f      *newFile
	once   sync.Once
	intact bool // it was ours to the end
}

// A lock file counts as left by a dead process if it has been there, unlocked and
// the same, for deadAfter and the process that it names does not run any more, or for
// lostAfter in any case. No program waits longer than MSAL Python, which goes on after
// five seconds.
const (
	deadAfter = time.Second
	lostAfter = 5 * time.Second
)

// Another program's lock file is examined first after firstLook, and then every
// lookAgain: to examine it takes its flock for a moment, and the other's own flock
// fails in that moment.
const (
	firstLook = 100 * time.Millisecond
	lookAgain = 200 * time.Millisecond
)

// lockPeer waits for the lock until ctx ends.
func lockPeer(ctx context.Context, path string) (*peerLock, error) {
	f, err := makeFile(path)
	if err != nil {
		return nil, err
	}
	l := &peerLock{path: path, f: f}
	if err := flock(int(f.Fd())); err != nil {
		f.discard()
		return nil, remedy.Errorf("Use a folder on a local disk.", "%w: the file system has no locks: %w", persistence.ErrUnavailable, err)
	}
	if _, err := fmt.Fprintf(f, "%d %s", os.Getpid(), neighbour.Ours); err != nil {
		f.discard()
		return nil, err
	}
	var w holder
	for wait := time.Millisecond; ; wait = min(2*wait, 10*time.Millisecond) {
		err := f.linkTo(path)
		if err == nil {
			if f.name != "" { // from now on it has one name
				_ = os.Remove(f.name)
				f.name = ""
			}
			return l, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			f.discard()
			return nil, err
		}
		if w.removeIfDead(path) {
			continue
		}
		if err := sleep(ctx, wait/2+rand.N(wait)); err != nil {
			f.discard()
			return nil, remedy.With("Another program is using its token cache. Try again, or end that program.",
				fmt.Errorf("%w: %s: %w", persistence.ErrLockTimeout, w.who(), err))
		}
	}
}

// mine reports whether the path still names this lock.
func (l *peerLock) mine() bool { return named(l.path, int(l.f.Fd())) }

// release removes the file and then gives up the lock. It reports whether it was
// still ours. A nil lock stands for no lock.
func (l *peerLock) release() bool {
	if l == nil {
		return true
	}
	l.once.Do(func() {
		if l.intact = l.mine(); l.intact {
			_ = os.Remove(l.path)
		}
		l.f.Close()
	})
	return l.intact
}

// holder is what a waiter knows of who has the lock.
type holder struct {
	ino   uint64 // of the lock file
	first time.Time
	next  time.Time // when to look at it
	pid   int
	ours  bool
}

func (h *holder) who() string {
	if h.pid == 0 {
		return "its holder is not known"
	}
	return fmt.Sprintf("process %d holds it", h.pid)
}

// removeIfDead removes the lock file if its holder is dead, and reports whether it did.
func (h *holder) removeIfDead(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	now := time.Now()
	if h.first.IsZero() || st.Ino != h.ino {
		*h = holder{ino: st.Ino, first: now, next: now.Add(firstLook)}
	}
	if h.pid == 0 {
		h.pid, h.ours = owner(fd)
	}
	// One of ours is locked while its holder lives, so a look disturbs nobody.
	if !h.ours && now.Before(h.next) {
		return false
	}
	h.next = now.Add(lookAgain)
	if flock(fd) != nil {
		return false // a living holder has it locked
	}
	age := now.Sub(h.first)
	if !h.ours && age < lostAfter && (age < deadAfter || alive(h.pid)) {
		return false // closing fd unlocks it
	}
	// While this process has it locked, nobody else who examines it first removes it.
	return named(path, fd) && os.Remove(path) == nil
}

// owner returns the process that the lock file names, or 0, and whether it is one
// of this package's.
func owner(fd int) (pid int, ours bool) {
	var b [64]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil || n <= 0 {
		return 0, false
	}
	pid, writer := neighbour.Holder(b[:n])
	return pid, writer == neighbour.Ours
}

func alive(pid int) bool {
	return pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// named reports whether path is the name of the open file.
func named(path string, fd int) bool {
	var a, b unix.Stat_t
	return unix.Lstat(path, &a) == nil && unix.Fstat(fd, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// flock locks the file, or fails at once.
func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
