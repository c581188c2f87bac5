//go:build linux || darwin

package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/neighbour"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/shell"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func canWrite() error { return nil }

// maxRounds bounds how often a save begins again because others have written all the
// same, or have removed the lock.
const maxRounds = 20

// write puts view into the file if the revision there is still rev; nil means any.
//
// The new file is made and flushed before the other programs' lock is taken, so that
// the lock is held for about a millisecond: MSAL Python waits five seconds for it and
// then goes on without. If somebody has written in between, the file is made again
// under the lock.
func (s *Store) write(ctx context.Context, view []byte, rev *string) (string, error) {
	if s.item != nil {
		return s.writeItem(ctx, view, rev)
	}
	peer := s.takeKept()
	defer func() { peer.release() }()
	for range maxRounds {
		path := resolved(s.path)
		old, err := checkTarget(path)
		if err != nil {
			return "", err
		}
		now, base, err := s.base(ctx)
		if err != nil {
			return "", err
		}
		if rev != nil && now.rev != *rev {
			if peer != nil && s.keepLock(peer) {
				peer = nil
			}
			return "", persistence.ErrConflict
		}
		if now.stamp == (stamp{}) && string(view) == "{}" {
			return "", nil // a Delete, and nothing is stored
		}
		next, err := s.lens().Put(base, view, time.Now())
		if errors.Is(err, lens.ErrUsername) {
			return "", remedy.With("Sign the other account out, with az logout, or sign in as that one.", err)
		}
		if err != nil {
			return "", remedy.With("Sign in again with the program that keeps it. If that does not help, remove the file.", err)
		}
		if bytes.Equal(next, now.raw) && len(next) > 0 {
			return now.rev, nil
		}
		done, err := s.publish(ctx, &peer, path, old, now, next)
		if err != nil {
			return "", err
		}
		if done {
			return s.stored(view, next)
		}
	}
	return "", persistence.ErrConflict
}

// base returns what is in the file, and the content that a change is put into. They
// differ only if the file is damaged.
func (s *Store) base(ctx context.Context) (now *sight, base []byte, err error) {
	last := s.last()
	now, err = s.read(ctx)
	if last == nil || !damaged(now, err, last) {
		if err == nil {
			s.keep(now)
			base = now.raw
		}
		return now, base, err
	}
	raw, at, readErr := readFile(ctx, s.path, maxSize)
	if readErr != nil {
		return nil, nil, readErr
	}
	s.report("healed", "another program was ended while it wrote its token cache, which is put right from what was read before; what others stored since then is lost")
	return &sight{raw: raw, stamp: at, view: last.view, rev: last.rev}, last.raw, nil
}

// stored returns the revision after view was put into next and next was stored.
func (s *Store) stored(view, next []byte) (string, error) {
	at, err := stampOf(s.path)
	if err != nil {
		return unknownRevision(), nil
	}
	now, err := s.sight(next, at, time.Now())
	if err != nil {
		return "", err
	}
	s.keep(now)
	// Written as the lens writes a view, does the file hold what was given?
	given, err := s.lens().View(view)
	if err != nil || !bytes.Equal(given, now.view) {
		return unknownRevision(), nil
	}
	return now.rev, nil
}

// publish makes next the content of the file at path, if that is still what now was
// read from. done is false if somebody else was faster; *peer is then the other
// programs' lock, if it is still held.
func (s *Store) publish(ctx context.Context, peer **peerLock, path string, old fs.FileInfo, now *sight, next []byte) (done bool, err error) {
	f, err := flushedFile(path, old, next)
	if err != nil {
		return false, err
	}
	defer f.discard()
	if *peer == nil {
		if *peer, err = lockPeer(ctx, s.lockPath()); err != nil {
			return false, err
		}
	}
	at, same, err := now.unchanged(ctx, path)
	if err != nil || !same {
		return false, err
	}
	if !(*peer).mine() {
		(*peer).release()
		*peer = nil
		return false, nil
	}
	if err := f.replace(path, at.modified()); err != nil {
		return false, err
	}
	mine := (*peer).release()
	*peer = nil
	if !mine { // MSAL Node removes locks that it does not hold
		raw, _, err := readFile(ctx, path, maxSize)
		if err != nil || !bytes.Equal(raw, next) {
			return false, persistence.ErrConflict
		}
	}
	return true, syncDir(filepath.Dir(path))
}

// flushedFile returns a new file for path that has the content data, on the disk, and
// is open to its owner alone. old is the file that it is to replace, or nil.
func flushedFile(path string, old fs.FileInfo, data []byte) (*newFile, error) {
	f, err := makeFile(path)
	if err != nil {
		return nil, err
	}
	mode := uint32(0o600)
	if old != nil {
		mode |= uint32(old.Mode().Perm()) & 0o700
	}
	if _, err = f.Write(data); err == nil {
		err = unix.Fchmod(int(f.Fd()), mode)
	}
	if err == nil {
		err = securefile.Flush(f.File)
	}
	if err != nil {
		f.discard()
		return nil, err
	}
	return f, nil
}

// unchanged reports whether the file at path still has the bytes that were read,
// or is still missing, and returns its stamp. Bytes are all that it compares, so it
// is quick enough to be called under the other programs' lock.
func (s *sight) unchanged(ctx context.Context, path string) (at stamp, same bool, err error) {
	raw, at, err := readFile(ctx, path, maxSize)
	missed := s.stamp == stamp{}
	if errors.Is(err, fs.ErrNotExist) {
		return at, missed, nil
	}
	return at, err == nil && !missed && bytes.Equal(raw, s.raw), err
}

// stampAhead is how far ahead of now a new file's time is: later than any time at
// which another program can have read the one before. MSAL Python and Node read a
// file again only if its time is later than their last look, and the kernel's own
// stamps lag behind the clock.
const stampAhead = 2 * time.Millisecond

// replace gives the file its time, later than before, and then its name, path. before
// is the time of the file that has that name until now.
func (f *newFile) replace(path string, before time.Time) error {
	name, err := f.link()
	if err != nil {
		return err
	}
	at, err := setTime(name, before)
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return remedy.Errorf("Share the folder with the container, not the file alone.", "%w: the file is mounted by itself, so it cannot be replaced: %w", persistence.ErrUnavailable, err)
		}
		return err
	}
	f.name = ""
	for tries := 0; !time.Now().Before(at) && tries < 5; tries++ {
		if at, err = setTime(path, at); err != nil {
			return err
		}
	}
	return nil
}

func setTime(path string, before time.Time) (time.Time, error) {
	ceil := func(t time.Time) time.Time { return t.Add(time.Millisecond - 1).Truncate(time.Millisecond) }
	at := ceil(time.Now()).Add(stampAhead)
	if after := ceil(before).Add(time.Millisecond); after.After(at) {
		at = after
	}
	return at, os.Chtimes(path, at, at)
}

// checkTarget returns what is at path, nil if nothing is, or why it cannot be
// replaced without harm.
func checkTarget(path string) (fs.FileInfo, error) {
	dir := filepath.Dir(path)
	folder, err := os.Stat(dir)
	if err != nil {
		return nil, remedy.With("Start the program that keeps the cache once, so that it makes its folder.", err)
	}
	if !owned(folder) {
		return nil, remedy.Errorf("Run the program as the user whose cache it is.", "%w: the folder belongs to another user", persistence.ErrUnavailable)
	}
	if folder.Mode().Perm()&0o002 != 0 {
		return nil, remedy.Errorf("Close the folder to other users: chmod o-w "+shell.Quote(dir), "%w: other users can write the folder", persistence.ErrUnavailable)
	}
	if kind := networkKind(dir); kind != "" {
		return nil, remedy.Errorf("Keep the cache on a local disk.", "%w: the folder is on a network file system (%s), where the programs' locks do not work", persistence.ErrUnavailable, kind)
	}
	old, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !old.Mode().IsRegular():
		return nil, remedy.Errorf("Give the path of the file.", "%w: it is no regular file", persistence.ErrUnavailable)
	case !owned(old):
		return nil, remedy.Errorf("Run the program as the user whose cache it is.", "%w: the file belongs to another user, who could not use it any more", persistence.ErrUnavailable)
	}
	return old, nil
}

func owned(i fs.FileInfo) bool {
	st, ok := i.Sys().(*unixStat)
	return ok && int(st.Uid) == os.Geteuid()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := securefile.Flush(d); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// newFile is a file that has no name yet or, where the system has no such files, a
// temporary one.
type newFile struct {
	*os.File
	path string // what it is made for
	name string
}

func makeFile(path string) (*newFile, error) {
	if f := unnamed(filepath.Dir(path)); f != nil {
		return &newFile{File: f, path: path}, nil
	}
	return makeNamed(path)
}

// litterAge is how old a temporary file must be to be what a killed process left.
const litterAge = time.Minute

func makeNamed(path string) (*newFile, error) {
	dir := filepath.Dir(path)
	if all, err := os.ReadDir(dir); err == nil {
		for _, e := range all {
			if !strings.HasPrefix(e.Name(), tempPrefix(path)) || !strings.HasSuffix(e.Name(), tempSuffix) {
				continue
			}
			if i, err := e.Info(); err == nil && i.Mode().IsRegular() && time.Since(i.ModTime()) > litterAge {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
	name := tempName(path)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return &newFile{File: f, path: path, name: name}, nil
}

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix(path)+unknownRevision()[len("changed-"):]+tempSuffix)
}

// link gives the file a temporary name, if it has none.
func (f *newFile) link() (string, error) {
	if f.name != "" {
		return f.name, nil
	}
	name := tempName(f.path)
	if err := linkUnnamed(f.File, name); err != nil {
		return "", err
	}
	f.name = name
	return name, nil
}

// linkTo gives the file the name to, which must be free.
func (f *newFile) linkTo(to string) error {
	if f.name == "" {
		return linkUnnamed(f.File, to)
	}
	return os.Link(f.name, to)
}

// discard closes the file, and removes the temporary name that it has.
func (f *newFile) discard() {
	if f.name != "" {
		_ = os.Remove(f.name)
	}
	f.Close()
}

// stamp tells one state of a file from another.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // in nanoseconds
}

func (s stamp) age() time.Duration { return time.Since(time.Unix(0, s.ctime)) }
func (s stamp) modified() time.Time {
	if s == (stamp{}) {
		return time.Time{}
	}
	return time.Unix(0, s.mtime)
}

func stampOfStat(st *unix.Stat_t) stamp {
	return stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// stampOf returns the stamp of the file that path leads to.
func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}, err
	}
	return stampOfStat(&st), nil
}

// readFile reads the file that path leads to, and changes nothing: where the file
// is the user's own, not even the time of the last access.
func readFile(_ context.Context, path string, limit int64) ([]byte, stamp, error) {
	fd, err := neighbour.Open(path)
	if err != nil {
		return nil, stamp{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, stamp{}, err
	}
	switch euid := os.Geteuid(); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, stamp{}, remedy.Errorf("Give the path of the file.", "%w: it is no regular file", persistence.ErrUnavailable)
	case euid != 0 && int(st.Uid) != euid && st.Uid != 0:
		return nil, stamp{}, remedy.Errorf("Run the program as the user whose cache it is.", "%w: it belongs to another user, whose tokens are not this one's", persistence.ErrUnavailable)
	case st.Size > limit:
		return nil, stamp{}, fmt.Errorf("%w: %d bytes; the maximum is %d", persistence.ErrTooLarge, st.Size, limit)
	}
	raw := make([]byte, 0, st.Size+512)
	var b [32 << 10]byte
	for {
		n, err := unix.Read(fd, b[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, stamp{}, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			break
		}
		if raw = append(raw, b[:n]...); int64(len(raw)) > limit {
			return nil, stamp{}, persistence.ErrTooLarge
		}
	}
	var after unix.Stat_t
	if err := unix.Fstat(fd, &after); err != nil {
		return nil, stamp{}, err
	}
	if stampOfStat(&after) != stampOfStat(&st) && int64(len(raw)) != after.Size {
		return raw[:0:0], stampOfStat(&after), nil // it is being written, and counts as empty
	}
	return raw, stampOfStat(&after), nil
}

func (s *Store) takeKept() *peerLock {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.kept
	s.kept = nil
	return kept
}

// keepLock keeps the other programs' lock for the next try, if a caller has locked the
// Store: that caller tries again or unlocks. It reports whether it keeps the lock, and
// releases it after keepFor in any case.
func (s *Store) keepLock(peer *peerLock) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks == 0 || s.kept != nil {
		return false
	}
	s.kept = peer
	time.AfterFunc(keepFor, func() {
		s.mu.Lock()
		mine := s.kept == peer
		if mine {
			s.kept = nil
		}
		s.mu.Unlock()
		if mine {
			peer.release()
		}
	})
	return true
}

// keepFor is longer than a merge and the wait before it.
const keepFor = 200 * time.Millisecond

// unknownRevision is a revision that nothing stored has.
func unknownRevision() string { return "changed-" + rand.Text() }

// lockPath is where the other programs' lock is, whatever the data's path leads
// to.
func (s *Store) lockPath() string { return neighbour.LockPath(s.path) }

// The names of temporary files. persistence.Cache.Watch does not take files with such
// names for data.
func tempPrefix(path string) string { return "." + filepath.Base(path) + ".tokenkeep-" }

const tempSuffix = ".tmp"
