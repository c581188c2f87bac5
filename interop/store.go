package interop

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/neighbour"
	"github.com/tokenkeep/tokenkeep/internal/opaque"
	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// ErrUsername is the error of a write that would add an account to Azure CLI's client
// id whose username another account has there. Azure CLI fails on two. Sign the other
// one out first.
var ErrUsername = lens.ErrUsername

// ErrReadOnly is the error of every write to a [Store] without Options.Write.
var ErrReadOnly = errors.New("another program's cache is only read here")

// Options say what a [Store] may see and do.
type Options struct {
	// Clients are the client ids whose entries are seen and, with Write, added,
	// changed and removed. At least one is required.
	Clients []string

	// Write permits to write. Without it every write fails with ErrReadOnly, and
	// nothing is ever made in the other program's folder, no lock file either.
	Write bool

	// WriteAsAzureCLI is needed besides Write to write entries of Azure CLI's client
	// id: what such a program does, it does as Azure CLI. See the package comment.
	WriteAsAzureCLI bool

	// SignOut lets a sign-out remove an account that other clients use too. Without
	// it, such an account stays in the file and is not seen here any more.
	SignOut bool

	// Logger is told, once for each kind, what does not fail a call. nil means
	// slog.Default(). No record holds a secret.
	Logger *slog.Logger
}

// Store is another program's token cache, as the clients of its Options see it. It
// is a [persistence.Versioned] and a [persistence.NamedLocker], and goes into
// persistence.New as it is. It is safe for concurrent use.
//
// Load returns ErrNotFound where nothing of these clients is stored. Delete removes
// what is theirs, and nothing else. The revision is a digest of what the clients
// see: it stays the same when entries of others change. What SaveIf stores may be
// loaded again with more fields, which the other program keeps. Then the revision that
// SaveIf returns is not the stored one, so that its caller loads again.
//
// Save stores entries of MSAL only. It fails for data with other sections, such as
// those of package tokensource.
type Store struct {
	place
	o    Options
	lens func() *lens.Lens
	own  *persistence.FileLock // between programs that use this package; nil: no place for one

	mu     sync.Mutex
	seen   func() *sight // behind a func: it holds tokens; see package opaque
	logged map[string]bool
	kept   *peerLock // the other programs' lock, kept after a conflict for the next try
	locks  int       // how many callers of Lock have not unlocked yet
}

var _ interface {
	persistence.Versioned
	persistence.NamedLocker
	persistence.Describer
} = (*Store)(nil)

// sight is one reading of the file.
type sight struct {
	raw   []byte // all of it
	view  []byte // what the clients see of it
	rev   string // "" where nothing of the clients is stored
	stamp stamp
	first time.Time // when the stamp was first seen
	read  time.Time
}

// The times of a file system are coarse. So a stamp is trusted only if the file was
// read with it grace after the stamp was first seen, and then for trustFor: see
// package filestore.
const (
	grace    = 2 * time.Second
	trustFor = time.Minute
)

// maxSize bounds what is read.
const maxSize = 64 << 20

// File returns the cache in the plain file at path, which msal-extensions of
// Python, .NET, Node or Go keep. The path must be the one that the other programs
// use, links included: the lock lies beside it, and a symbolic link is followed for
// the data only. The file may be missing.
//
// It fails if the path is empty or no client is named. It does no I/O.
func File(path string, o Options) (*Store, error) { return open("shared file", path, o) }

func open(backend, path string, o Options) (*Store, error) {
	return openPlace(place{backend: backend, path: path}, o)
}

// openPlace is open for caches that are not in a plain file.
func openPlace(p place, o Options) (*Store, error) {
	s := &Store{place: p, o: o, logged: map[string]bool{}}
	if p.path == "" {
		return nil, s.fail("open", remedy.Errorf("Pass the path that the other program uses.", "the path is empty"))
	}
	abs, err := filepath.Abs(p.path)
	if err != nil {
		return nil, s.fail("open", remedy.With("Pass an absolute path.", err))
	}
	s.path = abs
	if len(o.Clients) == 0 {
		return nil, s.fail("open", remedy.Errorf("Name the client ids in Options.Clients.", "no client is named whose entries may be seen"))
	}
	for _, c := range o.Clients {
		if c == "" {
			return nil, s.fail("open", remedy.Errorf("Name the client ids in Options.Clients.", "a client id is empty"))
		}
	}
	if o.Write && p.overwritten != "" {
		return nil, s.fail("open", remedy.Errorf("Leave Options.Write unset.", "%w: %s", ErrReadOnly, p.overwritten))
	}
	l := lens.New(o.Clients, o.SignOut)
	if l.Shows(AzureCLIClientID) {
		if o.Write && !o.WriteAsAzureCLI {
			return nil, s.fail("open", remedy.Errorf("Leave Options.Write unset, or set Options.WriteAsAzureCLI too if the program is meant to act as Azure CLI.",
				"entries of Azure CLI's client id are only read"))
		}
		l = l.OneAccountPerUsername()
	}
	if o.Write {
		if err := canWrite(); err != nil {
			return nil, s.fail("open", err)
		}
	}
	s.lens = opaque.Hide(l)
	s.own = ownLock(abs)
	return s, nil
}

// ownLock returns the lock between programs that use this package: it makes them
// take turns. That nothing is lost does not depend on it.
func ownLock(path string) *persistence.FileLock {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	sum := sha256.Sum256([]byte(resolved(path)))
	return persistence.NewFileLock(filepath.Join(dir, "tokenkeep", "interop", fmt.Sprintf("%x.lock", sum[:8])))
}

// resolved returns where path leads, as far as that is known.
func resolved(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// Describe says whether the other program encrypts the data: a plain file is not
// encrypted.
func (s *Store) Describe() persistence.Description {
	return persistence.Description{Backend: s.backend, Location: s.path, Encrypted: s.encrypted()}
}

// String returns what Describe says.
func (s *Store) String() string { return s.backend + " " + quote.Inline(s.path) }

// Format prints what String returns, for every verb.
func (s *Store) Format(f fmt.State, verb rune) { opaque.Format(f, verb, s.String()) }

// LogValue returns what String returns.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (s *Store) fail(op string, err error) error {
	var e *persistence.Error
	if err == nil || errors.As(err, &e) && e.Backend == s.backend {
		return err
	}
	return &persistence.Error{Op: op, Backend: s.backend, Location: s.path, Err: persistence.Cause(err), Remedy: persistence.Remedy(err)}
}

func (s *Store) report(kind, msg string, attrs ...any) {
	s.mu.Lock()
	known := s.logged[kind]
	s.logged[kind] = true
	s.mu.Unlock()
	if known {
		return
	}
	cmp.Or(s.o.Logger, slog.Default()).Warn("tokenkeep: "+msg, append([]any{"backend", s.backend, "location", s.path}, attrs...)...)
}

// Load returns what the clients see, or ErrNotFound.
func (s *Store) Load(ctx context.Context) ([]byte, error) {
	data, _, err := s.LoadRevision(ctx)
	return data, err
}

// LoadRevision returns what the clients see and its revision.
func (s *Store) LoadRevision(ctx context.Context) ([]byte, string, error) {
	now, err := s.look(ctx)
	if err == nil && now.rev == "" {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return nil, "", s.fail("load", err)
	}
	return bytes.Clone(now.view), now.rev, nil
}

// Revision costs a stat while the file does not change.
func (s *Store) Revision(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", s.fail("revision", err)
	}
	if last := s.last(); last != nil && last.read.Sub(last.first) >= grace && time.Since(last.read) < trustFor {
		if now, err := stampOf(s.path); err == nil && now == last.stamp {
			return last.rev, nil
		}
	}
	now, err := s.look(ctx)
	if err != nil {
		return "", s.fail("revision", err)
	}
	return now.rev, nil
}

func (s *Store) last() *sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		return nil
	}
	return s.seen()
}

// look reads the file. If it is damaged and was whole before, another program was
// killed while it wrote: then look returns the last reading, and the next save
// restores the file from that.
func (s *Store) look(ctx context.Context) (*sight, error) {
	now, err := s.read(ctx)
	if last := s.last(); last != nil && s.item == nil && damaged(now, err, last) {
		s.report("damaged", "another program has not finished writing its token cache; going on with what was read before")
		return last, nil
	}
	if err == nil {
		s.keep(now)
	}
	return now, err
}

func (s *Store) keep(now *sight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen != nil && now.stamp != (stamp{}) {
		if last := s.seen(); last.stamp == now.stamp {
			now.first = last.first
		}
	}
	s.seen = opaque.Hide(now)
}

// damaged reports whether what was read is what a program leaves that is killed
// after it has emptied the file and before it has written all of it.
func damaged(now *sight, err error, last *sight) bool {
	if len(bytes.TrimSpace(last.raw)) == 0 {
		return false
	}
	return errors.Is(err, persistence.ErrCorrupt) || err == nil && now.stamp != (stamp{}) && len(bytes.TrimSpace(now.raw)) == 0
}

// read reads the file and waits while it is being written. A missing file has no
// stamp.
func (s *Store) read(ctx context.Context) (*sight, error) {
	var waited time.Duration
	for wait := time.Millisecond; ; wait = min(2*wait, 64*time.Millisecond) {
		start := time.Now()
		raw, at, err := s.fetch(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			return &sight{stamp: at, first: start, read: start}, ctx.Err()
		}
		torn := mayBeTorn(err)
		if err != nil && !torn {
			return nil, err
		}
		if !torn && lens.Whole(raw) {
			return s.sight(raw, at, start)
		}
		if waited > neighbour.Unsettled || at.age() > neighbour.Unsettled {
			if torn {
				return nil, err
			}
			if len(bytes.TrimSpace(raw)) == 0 {
				return s.sight(raw, at, start)
			}
			return nil, remedy.Errorf("Sign in again with the program that keeps it, which may first have to be told to clear it.",
				"%w: it is not one JSON object", persistence.ErrCorrupt)
		}
		waited += wait
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// sight returns what the clients see of the file.
func (s *Store) sight(raw []byte, at stamp, start time.Time) (*sight, error) {
	now := &sight{raw: raw, stamp: at, first: start, read: start}
	if last := s.last(); last != nil && last.view != nil && bytes.Equal(last.raw, raw) {
		now.view, now.rev = last.view, last.rev
		return now, nil
	}
	view, err := s.lens().View(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", persistence.ErrCorrupt, err)
	}
	now.view, now.rev = view, revision(view)
	return now, nil
}

func revision(view []byte) string {
	if len(view) == 0 || lens.Empty(view) {
		return ""
	}
	sum := sha256.Sum256(view)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Save replaces what the clients see with data.
func (s *Store) Save(ctx context.Context, data []byte) error {
	_, err := s.save(ctx, "save", data, nil)
	return err
}

// SaveIf is Save if the revision still is rev.
func (s *Store) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	return s.save(ctx, "save", data, &rev)
}

// Delete removes what the clients see. What others have in the file stays.
func (s *Store) Delete(ctx context.Context) error {
	_, err := s.save(ctx, "delete", []byte("{}"), nil)
	return err
}

// DeleteIf is Delete if the revision still is rev.
func (s *Store) DeleteIf(ctx context.Context, rev string) error {
	_, err := s.save(ctx, "delete", []byte("{}"), &rev)
	return err
}

func (s *Store) save(ctx context.Context, op string, data []byte, rev *string) (now string, err error) {
	if !s.o.Write {
		return "", s.fail(op, ErrReadOnly)
	}
	if err := ctx.Err(); err != nil {
		return "", s.fail(op, err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	if !lens.Whole(data) {
		return "", s.fail(op, remedy.Errorf("Store only what MSAL marshalled.", "what is to be stored is not a token cache"))
	}
	do := func() error {
		now, err = s.write(ctx, data, rev)
		return err
	}
	if held := s.hold(ctx, do); held != nil {
		return "", s.fail(op, held)
	}
	return now, nil
}

// hold runs do under the lock between programs that use this package, if there can
// be one.
func (s *Store) hold(ctx context.Context, do func() error) error {
	if s.own == nil {
		return do()
	}
	ran := false
	err := s.own.Hold(ctx, func() error { ran = true; return do() })
	if !ran && !errors.Is(err, persistence.ErrLockTimeout) {
		return do() // no place for the lock: that of the other programs is enough
	}
	return err
}

// Lock takes the lock between programs that use this package. The other programs'
// lock is not held meanwhile: it is taken for the moment of a save. Where there is
// no place for the lock, in the user's cache folder, Lock does nothing.
func (s *Store) Lock(ctx context.Context) (func() error, error) {
	release := func() error { return nil }
	if s.own != nil && s.o.Write {
		unlock, err := s.own.Lock(ctx)
		switch {
		case err == nil:
			release = unlock
		case errors.Is(err, persistence.ErrLockTimeout):
			return nil, err
		}
	}
	s.mu.Lock()
	s.locks++
	s.mu.Unlock()
	var once sync.Once
	return func() (err error) {
		once.Do(func() {
			s.mu.Lock()
			s.locks--
			kept := s.kept
			s.kept = nil
			s.mu.Unlock()
			kept.release()
			err = release()
		})
		return err
	}, nil
}

// LockName takes the lock of that name, between programs that use this package.
func (s *Store) LockName(ctx context.Context, name string) (func() error, error) {
	if s.own == nil {
		return nil, s.fail("lock", remedy.Errorf("Give the user a home folder.", "%w: there is no cache folder for the lock", persistence.ErrUnavailable))
	}
	return s.own.LockName(ctx, name)
}

// sleep waits, or fails with ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
