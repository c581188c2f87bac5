// Package filestore keeps one file as a [persistence.Versioned] and
// [persistence.NamedLocker]. A [Codec] defines the file's format.
package filestore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/shell"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Codec is the format of a file. Its methods are called concurrently. An error
// may be a *persistence.Error with only Err and Remedy; the Store fills in the
// rest.
type Codec interface {
	// Revision returns the revision of a file. head is its first HeadSize bytes,
	// or the whole file if HeadSize is 0.
	Revision(head []byte) (string, error)
	// Decode returns the data in the file and its revision. If the head is sound
	// it returns the revision also with an error. data may be a part of file.
	Decode(ctx context.Context, file []byte) (data []byte, rev string, err error)
	// Encode returns the parts of a file that holds data, and its revision.
	// head is the head of the current file, nil if there is none. The lock is
	// held until the parts have been written or given up: the next call may
	// overwrite them.
	Encode(ctx context.Context, data, head []byte) (file [][]byte, rev string, err error)
}

// Options are the options of a [Store].
type Options struct {
	Backend  string                // as in persistence.Error
	MaxSize  int64                 // of the file in bytes; 0 means DefaultMaxSize
	HeadSize int                   // of the head in bytes; 0 means the whole file
	Lock     *persistence.FileLock // nil means that of layout.LockOf
	Clock    func() time.Duration  // a monotonic clock; nil means the system's
	Plain    bool                  // the file holds secrets that are not encrypted
}

// DefaultMaxSize is the largest file that is read or written unless the Options
// say otherwise: 64 MiB. What one store can hold by default another can take over.
const DefaultMaxSize = 64 << 20

// A stamp stands for the revision only if the head was read when that stamp had
// been unchanged for grace. Before that, another save can leave the same stamp,
// because its times are coarse and inodes are used again. After trustFor the head
// is read again, whatever the stamp says.
const (
	grace    = 2 * time.Second
	trustFor = time.Minute
)

// Store is one file. Reading needs no lock; every write happens under it.
type Store struct {
	path  string
	codec Codec
	o     Options
	last  atomic.Pointer[statEntry] // nil: nothing was read yet, or there is no file

	grace   time.Duration                           // tests set another one
	coarsen func(securefile.Stamp) securefile.Stamp // nil, but in tests
}

var (
	_ persistence.Versioned   = (*Store)(nil)
	_ persistence.NamedLocker = (*Store)(nil)
)

// statEntry is the stamp and the revision that the file had when its head was
// read last.
type statEntry struct {
	stamp securefile.Stamp
	rev   string
	first time.Duration // when the stamp was first seen, on the monotonic clock
	read  time.Duration // when the head was read
}

// fresh reports whether rev may be returned without reading while the stamp stays
// the same.
func (e *statEntry) fresh(grace, now time.Duration) bool {
	return e.read-e.first >= grace && now-e.read < trustFor
}

var started = time.Now()

// New returns the store of the file at path. The path is made absolute. If it is
// a symbolic link, New follows it, or fails if others could change the link; see
// securefile.Resolve. New does no other I/O.
func New(path string, codec Codec, o Options) (*Store, error) {
	if o.MaxSize <= 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.Clock == nil {
		o.Clock = func() time.Duration { return time.Since(started) }
	}
	s := &Store{path: path, codec: codec, o: o, grace: grace}
	resolved, err := securefile.Resolve(path)
	if err != nil {
		return nil, s.wrap("open", err)
	}
	s.path = resolved
	if o.Lock == nil {
		s.o.Lock = persistence.NewFileLock(layout.LockOf(resolved))
	}
	return s, nil
}

// Path returns the file's path, absolute and resolved.
func (s *Store) Path() string { return s.path }

// FileLock returns the lock that the writers share.
func (s *Store) FileLock() *persistence.FileLock { return s.o.Lock }

func (s *Store) Lock(ctx context.Context) (unlock func() error, err error) {
	unlock, err = s.o.Lock.Lock(ctx)
	return unlock, s.wrapLock("lock", err)
}

func (s *Store) LockName(ctx context.Context, name string) (unlock func() error, err error) {
	unlock, err = s.o.Lock.LockName(ctx, name)
	return unlock, s.wrapLock("lock", err)
}

// Revision costs one stat while nothing changes. The revision of a file whose head
// cannot be parsed is "bad:" and a hash of the file.
func (s *Store) Revision(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", s.wrap("revision", err)
	}
	if last := s.last.Load(); last != nil && last.fresh(s.grace, s.o.Clock()) {
		if stamp, err := securefile.Stat(s.path); err == nil && last.stamp == s.stampOf(stamp) {
			return last.rev, nil
		}
	}
	_, rev, err := s.head(ctx)
	if err != nil {
		return "", s.wrap("revision", err)
	}
	return rev, nil
}

// head returns the head of the file and its revision, or nil and "" if there is
// no file.
func (s *Store) head(ctx context.Context) (head []byte, rev string, err error) {
	now := s.o.Clock()
	var stamp securefile.Stamp
	if s.o.HeadSize > 0 {
		head, stamp, err = securefile.ReadHead(ctx, s.path, s.o.HeadSize)
	} else {
		head, stamp, err = securefile.Read(ctx, s.path, s.o.MaxSize)
	}
	if errors.Is(err, fs.ErrNotExist) {
		s.last.Store(nil)
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	rev, err = s.codec.Revision(head)
	if err != nil {
		file := head
		if s.o.HeadSize > 0 {
			if file, stamp, err = securefile.Read(ctx, s.path, s.o.MaxSize); err != nil {
				return nil, "", err
			}
			head = file[:min(len(file), s.o.HeadSize)]
		}
		rev = badRevision(file)
	}
	s.recordStat(stamp, rev, now)
	return head, rev, nil
}

func badRevision(file []byte) string {
	sum := sha256.Sum256(file)
	return "bad:" + hex.EncodeToString(sum[:])
}

// recordStat records the revision that was read from the file with that stamp, not
// before now.
func (s *Store) recordStat(stamp securefile.Stamp, rev string, now time.Duration) {
	stamp = s.stampOf(stamp)
	next := &statEntry{stamp: stamp, rev: rev, read: now}
	if last := s.last.Load(); last != nil && last.stamp == stamp {
		next.first = last.first
	} else {
		next.first = s.o.Clock()
	}
	s.last.Store(next)
}

func (s *Store) stampOf(stamp securefile.Stamp) securefile.Stamp {
	if s.coarsen != nil {
		return s.coarsen(stamp)
	}
	return stamp
}

func (s *Store) Load(ctx context.Context) ([]byte, error) {
	data, _, err := s.load(ctx)
	if err != nil {
		return nil, s.wrap("load", err)
	}
	return data, nil
}

// LoadRevision reads data and revision at once. If the file cannot be decoded it
// returns the revision with the error.
func (s *Store) LoadRevision(ctx context.Context) (data []byte, rev string, err error) {
	data, rev, err = s.load(ctx)
	if err != nil {
		return nil, rev, s.wrap("load", err)
	}
	return data, rev, nil
}

func (s *Store) load(ctx context.Context) (data []byte, rev string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	_, data, rev, err = s.read(ctx)
	return data, rev, err
}

// read returns the file, its data and its revision. If the file cannot be decoded
// it returns the revision with the error.
func (s *Store) read(ctx context.Context) (file, data []byte, rev string, err error) {
	now := s.o.Clock()
	file, stamp, err := securefile.Read(ctx, s.path, s.o.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		s.last.Store(nil)
		return nil, nil, "", persistence.ErrNotFound
	}
	if err != nil {
		return nil, nil, "", err
	}
	data, rev, err = s.codec.Decode(ctx, file)
	if rev == "" {
		rev = badRevision(file)
	}
	s.recordStat(stamp, rev, now)
	if err != nil {
		return nil, nil, rev, err
	}
	if data == nil {
		data = []byte{}
	}
	return file, data, rev, nil
}

func (s *Store) headOf(file []byte) []byte {
	if s.o.HeadSize > 0 && len(file) > s.o.HeadSize {
		return file[:s.o.HeadSize]
	}
	return file
}

func (s *Store) Save(ctx context.Context, data []byte) error {
	return s.underLock(ctx, "save", func() error {
		head, _, err := s.head(ctx)
		if err != nil {
			return err
		}
		_, err = s.write(ctx, data, head, s.codec.Encode)
		return err
	})
}

func (s *Store) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	var newRev string
	err := s.underLock(ctx, "save", func() error {
		head, current, err := s.head(ctx)
		if err != nil {
			return err
		}
		if current != rev {
			return persistence.ErrConflict
		}
		newRev, err = s.write(ctx, data, head, s.codec.Encode)
		return err
	})
	return newRev, err
}

// write replaces the file. The lock is held.
func (s *Store) write(ctx context.Context, data, head []byte, encode encoder) (rev string, err error) {
	if int64(len(data)) > s.o.MaxSize {
		return "", s.tooLarge(int64(len(data)))
	}
	file, rev, err := encode(ctx, data, head)
	if err != nil {
		return "", err
	}
	var size int64
	for _, part := range file {
		size += int64(len(part))
	}
	if size > s.o.MaxSize {
		return "", s.tooLarge(size)
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	replace := securefile.Replace
	if s.o.Plain {
		replace = securefile.ReplacePlain
	}
	stamp, err := replace(ctx, s.path, file...)
	if err != nil {
		return "", err
	}
	now := s.o.Clock()
	s.last.Store(&statEntry{stamp: s.stampOf(stamp), rev: rev, first: now, read: now})
	return rev, nil
}

type encoder = func(ctx context.Context, data, head []byte) (file [][]byte, rev string, err error)

func (s *Store) tooLarge(size int64) error {
	return fmt.Errorf("%w: %d bytes; the maximum is %d", persistence.ErrTooLarge, size, s.o.MaxSize)
}

func (s *Store) Delete(ctx context.Context) error {
	if errors.Is(securefile.CheckDir(filepath.Dir(s.path)), fs.ErrNotExist) {
		return nil // else the lock would make the folder
	}
	return s.underLock(ctx, "delete", func() error { return s.remove(ctx) })
}

func (s *Store) DeleteIf(ctx context.Context, rev string) error {
	return s.underLock(ctx, "delete", func() error {
		if _, current, err := s.head(ctx); err != nil {
			return err
		} else if current != rev {
			return persistence.ErrConflict
		}
		return s.remove(ctx)
	})
}

func (s *Store) remove(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.last.Store(nil)
	return securefile.Remove(ctx, s.path)
}

// Rewrite loads what is stored and saves it again as encode makes it, both under
// one lock.
func (s *Store) Rewrite(ctx context.Context, encode func(ctx context.Context, data, head []byte) (file [][]byte, rev string, err error)) error {
	return s.underLock(ctx, "save", func() error {
		file, data, _, err := s.read(ctx)
		if err != nil {
			return err
		}
		_, err = s.write(ctx, data, s.headOf(file), encode)
		return err
	})
}

// KeepAside is how many files that were set aside are kept: the newest ones.
const KeepAside = 5

// SetAside renames the file, so that it is out of the way and not lost, if its
// revision still is rev. Otherwise it fails with ErrConflict. It returns the new
// path: the old one, ".damaged-", the time in UTC and, where that name exists, a
// number.
//
// Then it removes older files that were set aside, so that KeepAside of them
// remain. Before that it calls forget, unless it is nil, with the paths that go. If
// forget fails, none is removed. Failing to remove older files is no error: the next
// SetAside tries again.
func (s *Store) SetAside(ctx context.Context, rev string, forget func(old []string) error) (newPath string, err error) {
	err = s.underLock(ctx, "set aside", func() error {
		_, current, err := s.head(ctx)
		if err != nil {
			return err
		}
		if current == "" || current != rev {
			return persistence.ErrConflict
		}
		others := s.aside(ctx)
		next := layout.NewAsideName(time.Now())
		for _, f := range others {
			if f.Time == next.Time {
				next.Number = max(f.Number, 1) + 1
				break
			}
		}
		newPath = s.path + next.Suffix()
		if err := securefile.Rename(ctx, s.path, newPath); err != nil {
			return err
		}
		s.last.Store(nil)
		// The new one is kept, whatever its name says: a clock may have been wrong.
		var old []string
		for _, f := range others[min(KeepAside-1, len(others)):] {
			old = append(old, s.path+f.Suffix())
		}
		if len(old) > 0 && (forget == nil || forget(old) == nil) {
			for _, path := range old {
				_ = securefile.Remove(ctx, path)
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return newPath, nil
}

// aside returns the files that were set aside, by what was added to their names,
// the newest first.
func (s *Store) aside(ctx context.Context) (all []layout.AsideName) {
	dir, base := filepath.Split(s.path)
	entries, _ := securefile.ReadDir(ctx, cmp.Or(dir, "."))
	for _, e := range entries {
		if f, ok := layout.ParseAside(e.Name(), base); ok {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b layout.AsideName) int {
		return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(b.Number, a.Number))
	})
	return all
}

// underLock runs fn with the lock held and wraps its error.
func (s *Store) underLock(ctx context.Context, op string, fn func() error) error {
	var fnErr error
	err := s.o.Lock.Hold(ctx, func() error {
		fnErr = fn()
		return nil
	})
	if fnErr != nil {
		return s.wrap(op, fnErr)
	}
	return s.wrapLock(op, err)
}

// wrapLock makes an error of the lock one of the store: the caller could not use the
// store.
func (s *Store) wrapLock(op string, err error) error {
	e, ok := err.(*persistence.Error)
	if !ok {
		return err
	}
	return s.wrap(op, &persistence.Error{Err: fmt.Errorf("%s %s: %w", e.Backend, e.Location, e.Err), Remedy: e.Remedy})
}

// wrap makes err a complete *persistence.Error.
func (s *Store) wrap(op string, err error) error {
	e := &persistence.Error{Op: op, Backend: s.o.Backend, Location: s.path, Err: err}
	var (
		insecure *securefile.Error
		write    *securefile.ReplaceError
		path     *fs.PathError
	)
	if given, ok := err.(*persistence.Error); ok { // the codec's
		if e.Err, e.Remedy = given.Err, given.Remedy; given.Op != "" {
			e.Op = given.Op
		}
		return e
	}
	if errors.As(err, &insecure) {
		e.Remedy = insecure.Remedy()
		if errors.Is(err, securefile.ErrTooLarge) {
			e.Err = fmt.Errorf("%w: %w", persistence.ErrTooLarge, err)
		} else if err == error(insecure) && insecure.Path == s.path { // named already
			e.Err = &securefile.Error{Reason: insecure.Reason, Err: insecure.Err}
		}
		return e
	}
	dir := filepath.Dir(s.path)
	switch isWrite := errors.As(err, &write); {
	case isWrite && securefile.IsFull(err):
		e.Remedy = fmt.Sprintf("Free some space on the disk that holds %s.", shell.Quote(dir))
	case isWrite && securefile.IsReadOnly(err):
		e.Remedy = fmt.Sprintf("Use a folder that can be written instead of %s.", shell.Quote(dir))
	case isWrite && errors.Is(err, fs.ErrPermission):
		e.Remedy = fmt.Sprintf("Make sure that you can write the folder %s.", shell.Quote(dir))
	case errors.As(err, &path) && path.Path == s.path && errors.Is(err, fs.ErrPermission):
		e.Remedy = fmt.Sprintf("Make sure that you can read %s and that it belongs to you.", shell.Quote(s.path))
	}
	return e
}
