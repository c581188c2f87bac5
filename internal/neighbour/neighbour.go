// Package neighbour reads the token cache that another program keeps in a file, and
// the lock file beside it. It changes nothing: where the system allows it, not even the
// time of the last access.
package neighbour

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Unsettled is the age up to which a file may still be incomplete: other programs write
// in place. Such a write takes less than a millisecond.
const Unsettled = time.Second

// maxSize bounds what is read.
const maxSize = 64 << 20

// Read returns the content of the file that path leads to, and its attributes. While
// the content is not one JSON object, it waits for up to Unsettled: another program may
// be writing it. What it returns after that may be empty or half.
func Read(ctx context.Context, path string) ([]byte, fs.FileInfo, error) {
	var waited time.Duration
	for wait := time.Millisecond; ; wait = min(2*wait, 64*time.Millisecond) {
		raw, fi, err := read(ctx, path)
		if err != nil || lens.Whole(raw) || waited > Unsettled || time.Since(fi.ModTime()) > Unsettled {
			return raw, fi, err
		}
		waited += wait
		if !within.Sleep(ctx, wait) {
			return nil, nil, ctx.Err()
		}
	}
}

func read(ctx context.Context, path string) ([]byte, fs.FileInfo, error) {
	f, err := open(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, remedy.Errorf("Give the path of the file.", "%w: it is no regular file", persistence.ErrUnavailable)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(raw) > maxSize {
		err = fmt.Errorf("%w: more than %d bytes", persistence.ErrTooLarge, maxSize)
	}
	return raw, fi, err
}

// LockPath returns the path of the lock file of the cache at path. It follows no link.
func LockPath(path string) string { return path + ".lockfile" }

// Lock describes a lock file. It is there while a process writes the cache, or a process
// that was killed has left it.
type Lock struct {
	Since  time.Time
	PID    int    // 0 if the file does not say
	Writer string // the library that wrote it, judged by its form; or ""
	Held   bool   // a process also has it locked, or on Windows keeps it open for itself
	Alive  bool   // a process PID runs; it may be another one by now
}

// LockOf returns the lock file of the cache at path, or nil if there is none. To find
// out whether it is held, LockOf takes a shared lock on it for a moment. It does not if
// the file is younger than Unsettled. A program that wants the lock in that moment tries
// again.
//
// On Windows a lock is held if its file cannot be opened, as MSAL.NET's, or not be read, as
// those of MSAL Python and of the extensions for Go. LockOf waits for the file to be
// opened until ctx ends, for ten seconds at most; then Held is all that is known of it but
// its age.
func LockOf(ctx context.Context, path string) (*Lock, error) {
	f, err := openLock(ctx, LockPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, securefile.ErrKeptOpen) {
		fi, statErr := os.Lstat(LockPath(path))
		switch {
		case errors.Is(statErr, fs.ErrNotExist):
			return nil, nil
		case statErr != nil:
			return nil, err
		}
		return &Lock{Since: fi.ModTime(), Held: true}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, remedy.Errorf("Remove it.", "the lock file is no regular file")
	}
	l := &Lock{Since: fi.ModTime()}
	note := make([]byte, 256)
	n, err := f.ReadAt(note, 0)
	if securefile.IsLocked(err) {
		l.Held = true
		return l, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	l.PID, l.Writer = Holder(note[:n])
	l.Alive = alive(l.PID)
	if time.Since(l.Since) > Unsettled {
		l.Held = held(f)
	}
	return l, nil
}

// Ours is the writer of the lock files of package interop. They have it after the
// process ID.
const Ours = "tokenkeep"

// Holder returns the process that the content of a lock file names, or 0, and the
// library that writes in that form, or "".
func Holder(note []byte) (pid int, writer string) {
	text, hasMark := bytes.CutPrefix(note, []byte("\ufeff"))
	number, rest, hasMore := strings.Cut(strings.TrimSpace(string(text)), " ")
	number, hasBraces := strings.CutPrefix(number, "{")
	number = strings.TrimSuffix(number, "}")
	pid, err := strconv.Atoi(number)
	switch {
	case err != nil || pid <= 0:
		return 0, ""
	case rest == Ours:
		return pid, Ours
	case hasMark:
		return pid, "MSAL.NET"
	case hasBraces:
		return pid, "the extensions for Go"
	case hasMore:
		return pid, "MSAL Python"
	}
	return pid, "MSAL Node"
}
