package tokenkeep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// keyringTimeout bounds the proof that the keyring works, or DPAPI.
const keyringTimeout = 15 * time.Second

// store is the Persistence of an opened cache: the backend that was chosen, and
// the choice made again when another process has changed what it rests on.
//
// The candidates share one lock, and two files: the encrypted one, whose header
// names its key's source, and the plaintext one. A plaintext file counts only
// where there is no encrypted one; beside one it is moved into it.
type store struct {
	cfg       Config
	lock      *persistence.FileLock
	encrypted string // path
	plaintext string // path

	current atomic.Pointer[inUse]
	turn    chan struct{} // of whoever makes the choice again
	failed  failedChoice  // belongs to whoever has the turn

	mu     sync.Mutex
	warned map[string]bool
}

// failedChoice is why the choice could not be made again, and for what file: for
// a while nobody is asked for a passphrase, and no keyring waited for, only to
// fail for the same reason.
type failedChoice struct {
	err   error
	stamp securefile.Stamp
	at    time.Time
}

const askAgainAfter = time.Minute

// backend is what every candidate is.
type backend interface {
	persistence.Versioned
	persistence.Describer
}

var _ interface {
	persistence.Versioned
	persistence.NamedLocker
	persistence.Describer
} = (*store)(nil)

func newStore(cfg Config) *store {
	path := filepath.Join(cfg.Dir, cfg.Name)
	return &store{
		cfg:       cfg,
		lock:      persistence.NewFileLock(path + ".lock"),
		encrypted: path + ".enc",
		plaintext: path + ".plaintext.json",
		turn:      make(chan struct{}, 1),
		warned:    map[string]bool{},
	}
}

// choose makes the choice by what is stored and what works now, and logs it.
func (s *store) choose(ctx context.Context) error {
	err := s.find(ctx)
	if err == nil {
		s.logChoice(ctx)
	}
	return err
}

func (s *store) find(ctx context.Context) error {
	if s.cfg.Store == storeMemory {
		s.use(persistence.NewMemory(), ByUser, nil)
		return nil
	}
	kept, err := s.openStored(ctx)
	if err != nil {
		return err
	}
	if kept != nil {
		s.use(kept, ByStored, nil)
		return s.tradeUp(ctx, kept)
	}
	// What all candidates need comes first, so that its failure does not pass
	// for one of them, and leads to something less safe.
	if err := s.proveLock(ctx); err != nil {
		return err
	}
	choice, err := fallback.Choose(ctx, s.candidates()...)
	if ctx.Err() != nil {
		return openError(s.cfg.Dir, ctx.Err(), "")
	}
	if err != nil {
		return err
	}
	for _, r := range choice.Refusals {
		if errors.Is(r.Err, persistence.ErrLockTimeout) {
			return r.Err
		}
	}
	s.use(choice.Persistence.(backend), ByOrder, choice.Refusals)
	switch current := choice.Persistence.(type) {
	case *encrypted.File:
		return s.tradeUp(ctx, current)
	case *fallback.InsecurePlaintextFile:
		// Now, since the warning ought to come before the sign-in, not after.
		s.warnPlaintext(choice.Refusals)
	}
	return nil
}

// proveLock shows that the folder can be written and the lock be had.
func (s *store) proveLock(ctx context.Context) error {
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	unlock, err := s.lock.Lock(ctx)
	if err != nil {
		return err
	}
	return unlock()
}

// boundedWait bounds what waits for other processes, but for no person.
func boundedWait(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, persistence.DefaultTimeout)
}

// openStored opens the encrypted file that is there, with the source that its
// header names and no other. It returns nil if there is none, or if it was of
// no more use and is set aside now.
func (s *store) openStored(ctx context.Context) (*encrypted.File, error) {
	for {
		file, err := s.tryStored(ctx)
		if !useless(err) && !errors.Is(err, persistence.ErrNotFound) {
			return file, err
		}
		if file == nil {
			return nil, nil
		}
		// Whoever sets it aside, this process or a faster one, look again.
		if err := s.setAside(ctx, file); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, openError(s.encrypted, ctx.Err(), "")
		}
	}
}

// tryStored is openStored once. If it fails because the file is of no more use
// or has just disappeared, it also returns the file; ErrNotFound without a file
// means that there is none.
func (s *store) tryStored(ctx context.Context) (*encrypted.File, error) {
	source, err := encrypted.StoredSource(s.encrypted)
	if errors.Is(err, persistence.ErrCorrupt) {
		// Any source serves to move the file; this one can also delete the keys of
		// older files.
		keys, openErr := s.source(storeKeyring)
		if openErr != nil {
			return nil, openErr
		}
		file, openErr := s.file(keys)
		if openErr != nil {
			return nil, openErr
		}
		return file, err
	}
	if err != nil {
		return nil, err
	}
	if s.cfg.Store != "" && s.cfg.Store != source {
		return nil, s.storedError(fmt.Errorf("the tokens are kept with the key source %q, and the wish was %q", source, s.cfg.Store),
			"Ask for the store that they are in, or remove the file to start anew.")
	}
	if s.cfg.Order != nil && !slices.Contains(s.cfg.Order, source) {
		return nil, s.storedError(fmt.Errorf("%w: their key source is %q, which this program does not permit", persistence.ErrUnavailable, source),
			"Use the program that stored the tokens, or remove the file to start anew.")
	}
	keys, err := s.source(source)
	if err != nil {
		return nil, s.storedError(err, remedyOf(err))
	}
	file, err := s.file(keys)
	if err != nil {
		return nil, err
	}
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if source == storeKeyring || source == storeDPAPI {
		bounded, cancel = context.WithTimeout(ctx, keyringTimeout)
	}
	defer cancel()
	switch err := file.Prove(bounded); {
	case err == nil, useless(err):
		return file, err
	default:
		return nil, s.storedError(err, remedyOf(err))
	}
}

// storedError is the refusal to start anew beside tokens that cannot be read
// now.
func (s *store) storedError(err error, remedy string) error {
	return &persistence.Error{Op: "open", Backend: "encrypted", Location: s.encrypted,
		Err: fmt.Errorf("tokens are stored here that cannot be read now, and nothing less safe was started beside them: %w", cause(err)), Remedy: remedy}
}

// useless says that what is stored can certainly not be read any more. A locked
// keyring, a mistyped passphrase or a newer version is not that.
func useless(err error) bool {
	return errors.Is(err, persistence.ErrCorrupt) || errors.Is(err, persistence.ErrKeyMissing)
}

// candidates are those that the program and the user ask for, in the order of
// preference. One that lacks what it needs says so when it is opened.
func (s *store) candidates() (all []fallback.Candidate) {
	for _, name := range s.cfg.order() {
		c := fallback.Candidate{Name: name, Open: func(ctx context.Context) (persistence.Persistence, error) { return s.openNew(ctx, name) }}
		switch name {
		case storeKeyring, storeDPAPI:
			c.Timeout = keyringTimeout
		case storePlaintext:
			c.Open = func(context.Context) (persistence.Persistence, error) { return s.openPlaintext() }
		}
		if s.cfg.Store == "" || s.cfg.Store == name {
			all = append(all, c)
		}
	}
	return all
}

// openNew opens the encrypted file where there is none yet, by making its key.
func (s *store) openNew(ctx context.Context, source string) (*encrypted.File, error) {
	keys, err := s.source(source)
	if err != nil {
		return nil, err
	}
	file, err := s.file(keys)
	if err != nil {
		return nil, err
	}
	return file, file.Prove(ctx)
}

func (s *store) file(keys encrypted.KeySource) (*encrypted.File, error) {
	return encrypted.New(s.encrypted, keys, &encrypted.Options{Name: s.cfg.Name, Lock: s.lock})
}

func (s *store) source(name string) (encrypted.KeySource, error) {
	switch name {
	case storeKeyring:
		k := s.cfg.Keyring
		if k == nil {
			k = keyring.System()
		}
		return keyring.NewKeySource(k, "tokenkeep/"+s.cfg.Name), nil
	case storeDPAPI:
		return encrypted.DPAPI(), nil
	case storePassphrase:
		if s.cfg.Passphrase == nil {
			return nil, openError("", fmt.Errorf("%w: this program has no way to ask for a passphrase", persistence.ErrUnavailable),
				"The program's author can set Config.Passphrase.")
		}
		return encrypted.Passphrase(s.cfg.Passphrase), nil
	default:
		return nil, openError("", fmt.Errorf("%w: the key source %q is not one that this program uses", persistence.ErrUnavailable, name),
			"Use the program that stored the tokens.")
	}
}

func (s *store) openPlaintext() (persistence.Persistence, error) {
	if !s.cfg.AllowPlaintext {
		return nil, openError("", fmt.Errorf("%w: this program does not permit it", persistence.ErrUnavailable),
			"The program's author can set Config.AllowPlaintext.")
	}
	return s.plaintextFile()
}

func (s *store) plaintextFile() (*fallback.InsecurePlaintextFile, error) {
	return fallback.NewInsecurePlaintextFile(s.plaintext, func(fallback.Warning) {}, &fallback.Options{Lock: s.lock})
}

func (s *store) warnPlaintext(refusals []fallback.Refusal) {
	var reasons, remedies []string
	for _, r := range refusals {
		reasons = append(reasons, r.Candidate+": "+r.Reason())
		if remedy := r.Remedy(); remedy != "" {
			remedies = append(remedies, remedy)
		}
	}
	if len(refusals) == 0 {
		reasons = []string{"it was asked for"}
	}
	s.warn(fallback.Warning{
		Backend:  "plaintext",
		Location: s.plaintext,
		Message:  "tokens are stored unencrypted: whoever can read this file can sign in as you",
		Reason:   strings.Join(reasons, "; "),
		Remedy:   strings.Join(remedies, " "),
	})
}

// tradeUp moves what the plaintext file holds into the encrypted one: copied, or
// merged with what is there, read back, compared, and only then removed. Every
// step is conditional, so it needs no lock around it, and may run under one.
//
// The plaintext file may be there beside the encrypted one because a process
// without a keyring stored its tokens while the other file did not exist yet, or
// because a move was cut short. The lock file's note tells: what was copied once
// is not merged a second time, lest it bring back accounts that were signed out
// since. It is noted after the copy, never before: another process may be faster
// with a copy of less, and then what is noted already would be lost.
func (s *store) tradeUp(ctx context.Context, to *encrypted.File) error {
	if !exists(s.plaintext) {
		return nil
	}
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	from, err := s.plaintextFile()
	if err != nil {
		return s.leftPlaintext(err)
	}
	for {
		done, err := s.moveOnce(ctx, from, to)
		if done || err != nil && !errors.Is(err, persistence.ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return openError(s.plaintext, ctx.Err(), "")
		}
	}
}

func (s *store) moveOnce(ctx context.Context, from *fallback.InsecurePlaintextFile, to *encrypted.File) (done bool, err error) {
	data, rev, err := from.LoadRevision(ctx)
	switch {
	case errors.Is(err, persistence.ErrNotFound):
		return true, nil
	case err != nil:
		return true, s.leftPlaintext(err)
	case torn(data):
		kept, err := from.SetAside(ctx, rev)
		return true, s.setAsideDone(s.plaintext, kept, err, "the file is damaged")
	}
	kept, there, err := to.LoadRevision(ctx)
	switch {
	case errors.Is(err, persistence.ErrNotFound):
		if err := copyTo(ctx, to, data, ""); err != nil {
			return false, err
		}
	case useless(err):
		return false, s.setAside(ctx, to)
	case err != nil:
		return false, err
	case !s.moved(rev):
		merged, changed, err := merge.Bytes(merge.BytesInput{BaseUnknown: true, Ours: data, Theirs: kept, Now: time.Now()})
		if err != nil {
			return true, s.leftPlaintext(errors.New("it cannot be merged with what is stored encrypted"))
		}
		if changed {
			if err := copyTo(ctx, to, merged, there); err != nil {
				return false, err
			}
		}
	}
	_ = s.noteMove(ctx, rev) // of use only if the next step is not taken
	err = from.DeleteIf(ctx, rev)
	return err == nil, err
}

// copyTo saves data where there is the revision, and reads it back.
func copyTo(ctx context.Context, to *encrypted.File, data []byte, there string) error {
	rev, err := to.SaveIf(ctx, data, there)
	if err != nil {
		return err
	}
	back, now, err := to.LoadRevision(ctx)
	if err == nil && now != rev {
		return persistence.ErrConflict // changed meanwhile: begin again
	}
	if err != nil || !bytes.Equal(back, data) {
		return openError(to.Describe().Location, errors.Join(errors.New("what was moved from the plaintext file does not read back the same; the plaintext file was kept"), err),
			"Check the disk, then start the program again.")
	}
	return nil
}

// leftPlaintext warns of a plaintext file that cannot be moved. That is no
// reason not to use the encrypted one.
func (s *store) leftPlaintext(err error) error {
	s.warn(fallback.Warning{
		Backend:  "plaintext",
		Location: s.plaintext,
		Message:  "a file with unencrypted tokens lies there and could not be moved into the encrypted one",
		Reason:   cause(err).Error(),
		Remedy:   strings.TrimSpace(remedyOf(err) + " Remove the file if it is not needed."),
	})
	return nil
}

// The note in the lock file holds words; those of a move begin like this, with
// the plaintext file's revision behind.
const movedWord = "moved:"

func (s *store) noteMove(ctx context.Context, rev string) error {
	return s.lock.Hold(ctx, func() error {
		line, err := filelock.ReadNote(s.lock.Path())
		if err != nil {
			return err
		}
		words := slices.DeleteFunc(strings.Fields(line), func(w string) bool { return strings.HasPrefix(w, movedWord) })
		return filelock.WriteNote(s.lock.Path(), strings.Join(append(words, movedWord+rev), " "))
	})
}

func (s *store) moved(rev string) bool {
	line, _ := filelock.ReadNote(s.lock.Path())
	return slices.Contains(strings.Fields(line), movedWord+rev)
}

// setAside renames the encrypted file away, if it fails again in the same way
// and is still the same.
func (s *store) setAside(ctx context.Context, file *encrypted.File) error {
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	_, rev, err := file.LoadRevision(ctx)
	if !useless(err) {
		return nil // another process was faster, or it was not so bad: look again
	}
	to, moveErr := file.SetAside(ctx, rev)
	return s.setAsideDone(s.encrypted, to, moveErr, cause(err).Error())
}

// setAsideDone warns that path was renamed to the name to, unless err says that
// it was not.
func (s *store) setAsideDone(path, to string, err error, reason string) error {
	if errors.Is(err, persistence.ErrConflict) || errors.Is(err, persistence.ErrNotFound) {
		return nil // another process was faster
	}
	if err == nil {
		s.warn(fallback.Warning{
			Location: path,
			Message:  "the stored tokens can no longer be read, so you will have to sign in again",
			Reason:   reason,
			Remedy:   "The file was kept as " + to + ", as the newest five of them are; it can be removed.",
		})
	}
	return err
}

// backend returns the backend in use. Where that is the plaintext file and
// another process has found something safer since, it makes the choice again,
// so that nobody goes on beside what is safer.
func (s *store) backend(ctx context.Context) (backend, error) {
	current := s.current.Load().backend
	if _, ok := current.(*fallback.InsecurePlaintextFile); !ok || !exists(s.encrypted) {
		return current, nil
	}
	return s.chooseAgain(ctx, current)
}

// chooseAgain makes the choice again, unless another goroutine has made it since
// current was in use.
func (s *store) chooseAgain(ctx context.Context, current backend) (backend, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, openError(s.encrypted, ctx.Err(), "")
	}
	if now := s.current.Load().backend; now != current {
		return now, nil
	}
	stamp, _ := securefile.Stat(s.encrypted)
	if f := s.failed; f.err != nil && f.stamp == stamp && time.Since(f.at) < askAgainAfter {
		return nil, f.err
	}
	if err := s.choose(ctx); err != nil {
		if ctx.Err() == nil {
			s.failed = failedChoice{err, stamp, time.Now()}
		}
		return nil, err
	}
	s.failed = failedChoice{}
	return s.current.Load().backend, nil
}

// exists says whether there is anything at path, as far as can be known.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Load implements persistence.Persistence.
func (s *store) Load(ctx context.Context) ([]byte, error) {
	data, _, err := s.LoadRevision(ctx)
	return data, err
}

// Revision implements persistence.Versioned.
func (s *store) Revision(ctx context.Context) (string, error) {
	b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	rev, err := b.Revision(ctx)
	if moved, moveErr := s.adopt(ctx, b, err == nil && rev == ""); moved || moveErr != nil {
		if moveErr != nil {
			return "", moveErr
		}
		return b.Revision(ctx)
	}
	return rev, err
}

// adopt moves the plaintext file's content into the encrypted file b where
// nothing is stored yet: a process without a keyring was faster. It says whether
// something is stored now.
func (s *store) adopt(ctx context.Context, b backend, nothingStored bool) (bool, error) {
	file, ok := b.(*encrypted.File)
	if !ok || !nothingStored || !exists(s.plaintext) {
		return false, nil
	}
	if err := s.tradeUp(ctx, file); err != nil {
		return false, err
	}
	rev, err := file.Revision(ctx)
	return rev != "", err
}

// LoadRevision implements persistence.Versioned.
func (s *store) LoadRevision(ctx context.Context) ([]byte, string, error) {
	b, err := s.backend(ctx)
	if err != nil {
		return nil, "", err
	}
	data, rev, err := b.LoadRevision(ctx)
	switch file := b.(type) {
	case *encrypted.File:
		switch {
		case useless(err):
			if err := s.setAside(ctx, file); err != nil {
				return nil, "", err
			}
			return file.LoadRevision(ctx)
		case errors.Is(err, persistence.ErrWrongKey) && s.otherSource(file):
			if b, err = s.chooseAgain(ctx, b); err != nil {
				return nil, "", err
			}
			return b.LoadRevision(ctx)
		}
		if moved, moveErr := s.adopt(ctx, b, errors.Is(err, persistence.ErrNotFound)); moveErr != nil {
			return nil, "", moveErr
		} else if moved {
			return file.LoadRevision(ctx)
		}
	case *fallback.InsecurePlaintextFile:
		if err == nil && torn(data) {
			to, err := file.SetAside(ctx, rev)
			if err := s.setAsideDone(s.plaintext, to, err, "the file is damaged"); err != nil {
				return nil, "", err
			}
			return file.LoadRevision(ctx)
		}
	}
	return data, rev, err
}

// otherSource says whether the encrypted file has its key from elsewhere by now:
// a process with another choice of keys was faster, or the key was rotated.
func (s *store) otherSource(file *encrypted.File) bool {
	source, err := encrypted.StoredSource(s.encrypted)
	return err == nil && source != file.Describe().KeySource
}

// torn says that data is a JSON object that breaks off or is broken. Nothing
// guards a plaintext file, and other programs may have written it.
func torn(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) == 0 || data[0] != '{' {
		return false // empty, or of another format altogether
	}
	_, err := tokencache.Parse(data)
	return err != nil
}

// Save implements persistence.Persistence.
func (s *store) Save(ctx context.Context, data []byte) error {
	b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	return b.Save(ctx, data)
}

// SaveIf implements persistence.Versioned. After another choice rev is of
// another backend, and so it is a conflict.
func (s *store) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	if moved, err := s.adopt(ctx, b, rev == ""); err != nil {
		return "", err
	} else if moved {
		return "", openError(s.encrypted, persistence.ErrConflict, "")
	}
	return b.SaveIf(ctx, data, rev)
}

// Delete implements persistence.Persistence.
func (s *store) Delete(ctx context.Context) error {
	b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	return b.Delete(ctx)
}

// DeleteIf implements persistence.Versioned.
func (s *store) DeleteIf(ctx context.Context, rev string) error {
	b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	return b.DeleteIf(ctx, rev)
}

// Lock implements persistence.Locker. A cache in memory locks in memory.
func (s *store) Lock(ctx context.Context) (func() error, error) {
	return s.locker().Lock(ctx)
}

// LockName implements persistence.NamedLocker.
func (s *store) LockName(ctx context.Context, name string) (func() error, error) {
	return s.locker().LockName(ctx, name)
}

func (s *store) locker() persistence.NamedLocker {
	if m, ok := s.current.Load().backend.(*persistence.Memory); ok {
		return m
	}
	return s.lock
}

// Describe implements persistence.Describer.
func (s *store) Describe() persistence.Description { return s.current.Load().Describe() }

// warn tells the program, once for each message and what can be done about it.
func (s *store) warn(w fallback.Warning) {
	what := w.Message + w.Remedy
	s.mu.Lock()
	known := s.warned[what]
	s.warned[what] = true
	s.mu.Unlock()
	if known {
		return
	}
	if s.cfg.Warn != nil {
		s.cfg.Warn(w)
		return
	}
	s.logger().Warn("tokenkeep: "+w.Message, "backend", w.Backend, "location", w.Location, "reason", w.Reason, "remedy", w.Remedy)
}

// cause is err without the place, which whoever wraps it names.
func cause(err error) error {
	var e *persistence.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}

func remedyOf(err error) string {
	var e *persistence.Error
	if errors.As(err, &e) {
		return e.Remedy
	}
	return ""
}
