package tokenkeep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/merge"
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
// where there is no encrypted one.
type store struct {
	cfg       Config
	lock      *persistence.FileLock
	encrypted string // path
	plaintext string // path

	current atomic.Pointer[backend]
	turn    chan struct{} // of whoever makes the choice again

	mu     sync.Mutex
	warned map[string]bool
}

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

// choose makes the choice by what is stored and what works now.
func (s *store) choose(ctx context.Context) error {
	if s.cfg.Store == storeMemory {
		s.use(persistence.NewMemory())
		return nil
	}
	kept, err := s.openStored(ctx)
	if err != nil {
		return err
	}
	if kept != nil {
		s.use(kept)
		return s.tradeUp(ctx, kept)
	}
	choice, err := fallback.Choose(ctx, s.candidates()...)
	if err != nil {
		return err
	}
	s.use(choice.Persistence.(backend))
	switch current := choice.Persistence.(type) {
	case *encrypted.File:
		return s.tradeUp(ctx, current)
	case *fallback.InsecurePlaintextFile:
		// Now, since the warning ought to come before the sign-in, not after.
		s.warnPlaintext(choice.Refusals)
	}
	return nil
}

// openStored opens the encrypted file that is there, with the source that its
// header names and no other. It returns nil if there is none, or if it was of
// no more use and is set aside now.
func (s *store) openStored(ctx context.Context) (*encrypted.File, error) {
	source, err := encrypted.StoredSource(s.encrypted)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil, nil
	}
	if err != nil && !errors.Is(err, persistence.ErrCorrupt) {
		return nil, err
	}
	if err != nil {
		// Any source serves to move a file whose header is damaged.
		file, openErr := s.file(encrypted.Passphrase(noPassphrase))
		if openErr != nil {
			return nil, openErr
		}
		return nil, s.setAside(ctx, file)
	}
	if s.cfg.Store != "" && s.cfg.Store != source {
		return nil, s.storedError(fmt.Errorf("the tokens are kept with the key source %q, and the wish was %q", source, s.cfg.Store),
			"Ask for the store that they are in, or remove the file to start anew.")
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
	err = file.Prove(bounded)
	switch {
	case err == nil:
		return file, nil
	case useless(err):
		return nil, s.setAside(ctx, file)
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

// candidates are all there are, in the order of preference; those that are not
// permitted say so when they are opened.
func (s *store) candidates() (all []fallback.Candidate) {
	for _, name := range storesOf(runtime.GOOS) {
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

func noPassphrase(context.Context) ([]byte, error) {
	return nil, errors.New("there is no passphrase")
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

// tradeUp moves what the plaintext file holds into the encrypted one: copied,
// read back, compared, and only then removed. Nobody writes meanwhile.
func (s *store) tradeUp(ctx context.Context, to *encrypted.File) error {
	from, err := s.plaintextFile()
	if err != nil {
		return err
	}
	if rev, err := from.Revision(ctx); err != nil || rev == "" {
		return err
	}
	unlock, err := s.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	data, rev, err := from.LoadRevision(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil // another process was faster
	}
	if err != nil {
		return err
	}
	if torn(data) {
		kept, err := from.SetAside(ctx, rev)
		return s.setAsideDone(s.plaintext, kept, err, "the file is damaged")
	}
	there, err := to.Revision(ctx)
	if err != nil {
		return err
	}
	if there == "" {
		if _, err := to.SaveIf(ctx, data, ""); err != nil {
			return err
		}
		if back, err := to.Load(ctx); err != nil || !bytes.Equal(back, data) {
			return openError(s.encrypted, errors.Join(errors.New("what was moved from the plaintext file does not read back the same; the plaintext file was kept"), err),
				"Check the disk, then start the program again.")
		}
	}
	// Where an encrypted file was there before, the plaintext one is left over
	// from a move that was cut short, or older than the encrypted one.
	return from.DeleteIf(ctx, rev)
}

// setAside renames the encrypted file away, if it fails again in the same way
// and is still the same.
func (s *store) setAside(ctx context.Context, file *encrypted.File) error {
	_, rev, err := file.LoadRevision(ctx)
	if !useless(err) {
		return err
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
			Remedy:   "The file was kept as " + to + "; it can be removed.",
		})
	}
	return err
}

func (s *store) use(b backend) { s.current.Store(&b) }

// backend returns the backend in use. Where that is the plaintext file and
// another process has found something safer since, it makes the choice again,
// so that nobody goes on beside what is safer.
func (s *store) backend(ctx context.Context) (backend, error) {
	current := *s.current.Load()
	if _, ok := current.(*fallback.InsecurePlaintextFile); !ok || !s.saferAppeared() {
		return current, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, openError(s.encrypted, ctx.Err(), "")
	}
	if *s.current.Load() == current {
		if err := s.choose(ctx); err != nil {
			return nil, err
		}
	}
	return *s.current.Load(), nil
}

func (s *store) saferAppeared() bool {
	_, err := os.Lstat(s.encrypted)
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
	return b.Revision(ctx)
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
		if useless(err) {
			if err := s.setAside(ctx, file); err != nil {
				return nil, "", err
			}
			return b.LoadRevision(ctx)
		}
	case *fallback.InsecurePlaintextFile:
		if err == nil && torn(data) {
			to, err := file.SetAside(ctx, rev)
			if err := s.setAsideDone(s.plaintext, to, err, "the file is damaged"); err != nil {
				return nil, "", err
			}
			return b.LoadRevision(ctx)
		}
	}
	return data, rev, err
}

// torn says that data is a JSON object that breaks off or is broken. Nothing
// guards a plaintext file, and other programs may have written it.
func torn(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) == 0 || data[0] != '{' {
		return false // empty, or of another format altogether
	}
	_, err := merge.Accounts(data)
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
	if m, ok := (*s.current.Load()).(*persistence.Memory); ok {
		return m
	}
	return s.lock
}

// Describe implements persistence.Describer.
func (s *store) Describe() persistence.Description { return (*s.current.Load()).Describe() }

// warn tells the program, once for each message.
func (s *store) warn(w fallback.Warning) {
	s.mu.Lock()
	known := s.warned[w.Message]
	s.warned[w.Message] = true
	s.mu.Unlock()
	if known {
		return
	}
	if s.cfg.Warn != nil {
		s.cfg.Warn(w)
		return
	}
	l := s.cfg.Logger
	if l == nil {
		l = slog.Default()
	}
	l.Warn("tokenkeep: "+w.Message, "backend", w.Backend, "location", w.Location, "reason", w.Reason, "remedy", w.Remedy)
}

// cause is err without the place, which whoever wraps it names.
func cause(err error) error {
	if e, ok := errors.AsType[*persistence.Error](err); ok && e.Err != nil {
		return e.Err
	}
	return err
}

func remedyOf(err error) string {
	if e, ok := errors.AsType[*persistence.Error](err); ok {
		return e.Remedy
	}
	return ""
}
