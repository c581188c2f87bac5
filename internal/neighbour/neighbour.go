// Package neighbour looks at the token cache that another program keeps in a file,
// and at the lock file beside it. It changes nothing: where the system allows it,
// not even the time of the last access.
package neighbour

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Unsettled is how young a file is that may be about to be written: other programs
// write in place. A writer takes less than a millisecond for it.
const Unsettled = time.Second

// maxSize bounds what is read.
const maxSize = 64 << 20

// Read returns the file that path leads to, and what the system says of it. While
// the file is not one JSON object, it waits for up to Unsettled: somebody may be
// writing it. What it returns then may be empty or half.
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

// LockPath is where the lock file of the cache at path is. A link is not followed.
func LockPath(path string) string { return path + ".lockfile" }

// Lock is a lock file: it is there while somebody writes the cache, or has been
// left by a process that was killed.
type Lock struct {
	Since  time.Time
	PID    int    // 0 if the file does not say
	Writer string // the library that wrote it, as far as its form tells; or ""
	Held   bool   // somebody has it locked with flock, besides that it is there
	Alive  bool   // there is a process PID, which may be another one by now
}

// LockOf returns the lock file of the cache at path, or nil if there is none. To
// find out whether it is held, LockOf shares a lock on it for a moment, unless it is
// younger than Unsettled: a program that wants to lock it just then tries again.
func LockOf(path string) (*Lock, error) {
	f, err := openLock(LockPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
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

// Ours is the writer of package interop's lock files: it stands after the process
// ID.
const Ours = "tokenkeep"

// Holder returns the process that a lock file names, or 0, and by its form the
// library that wrote it, or "".
func Holder(note []byte) (pid int, writer string) {
	text, net := bytes.CutPrefix(note, []byte("\ufeff"))
	number, rest, more := strings.Cut(strings.TrimSpace(string(text)), " ")
	inBraces, goes := strings.CutPrefix(number, "{")
	number = strings.TrimSuffix(inBraces, "}")
	pid, err := strconv.Atoi(number)
	switch {
	case err != nil || pid <= 0:
		return 0, ""
	case rest == Ours:
		return pid, Ours
	case net:
		return pid, "MSAL.NET"
	case goes:
		return pid, "the extensions for Go"
	case more:
		return pid, "MSAL Python"
	}
	return pid, "MSAL Node"
}
