package tokenkeep

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/internal/place"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/transfer"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// keyringTimeout bounds the check that the keyring, or DPAPI, works. It is longer
// than the keyring's own timeout, whose error says more. macOS asks by itself, and
// somebody has to answer.
var keyringTimeout = keyringTimeoutOf(runtime.GOOS)

func keyringTimeoutOf(goos string) time.Duration {
	if goos == "darwin" {
		return 75 * time.Second
	}
	return 15 * time.Second
}

// store forwards to the backend that Open chose, and chooses again when another
// process has changed the files that the choice depended on.
//
// The candidates share one lock, and two files: the encrypted one, whose header
// names its key's source, and the plaintext one. The plaintext file is used only
// if there is no encrypted file. What becomes of one beside an encrypted file is
// the promoter's business.
type store struct {
	cfg      Config
	place    place.Place
	lock     *persistence.FileLock
	promoter *promoter

	current  atomic.Pointer[inUse]
	choosing chan struct{} // full while the choice is made again
	failed   failedChoice  // guarded by choosing

	mu     sync.Mutex
	warned map[string]bool
}

// failedChoice caches a failed choice for one state of the encrypted file, so that
// for a minute nobody is asked again for a passphrase only to fail in the same
// way.
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

func newStore(cfg Config) (*store, error) {
	at, err := place.Of(cfg.Dir, cfg.Name)
	if err != nil && cfg.Store != layout.Memory { // which uses no file
		return nil, openError(cfg.Dir, err, persistence.Remedy(err))
	}
	s := &store{
		cfg:      cfg,
		place:    at,
		lock:     persistence.NewFileLock(at.Lock),
		choosing: make(chan struct{}, 1),
		warned:   map[string]bool{},
	}
	s.promoter = &promoter{
		cache:     layout.Cache{Dir: cfg.Dir, Name: cfg.Name},
		place:     at,
		lock:      s.lock,
		ledger:    ledger.In(at.Lock),
		permitted: cfg.permitsPlaintext(),
		warn:      s.warn,
		notMoved:  func(w fallback.Warning) error { s.warn(w); return nil },
	}
	return s, nil
}

// choose chooses by what is stored and what works now, and logs the choice.
func (s *store) choose(ctx context.Context) error {
	err := s.selectBackend(ctx)
	if err == nil {
		s.logChoice(ctx)
	}
	return err
}

func (s *store) selectBackend(ctx context.Context) error {
	if s.cfg.Store == layout.Memory {
		s.use(persistence.NewMemory(), ByUser, nil)
		return nil
	}
	existing, err := s.openExisting(ctx)
	if err != nil {
		return err
	}
	if existing != nil {
		s.use(existing, ByStored, nil)
		return s.promoter.promote(ctx, existing)
	}
	// What all candidates need comes first, so that its failure is not taken for
	// that of one of them, and does not lead to something less safe.
	if err := s.proveLock(ctx); err != nil {
		return err
	}
	selected, err := fallback.Choose(ctx, s.candidates()...)
	if ctx.Err() != nil {
		return openError(s.cfg.Dir, ctx.Err(), "")
	}
	if err != nil {
		return err
	}
	for _, r := range selected.Refusals {
		if errors.Is(r.Err, persistence.ErrLockTimeout) {
			return r.Err
		}
	}
	s.use(selected.Persistence.(backend), ByOrder, selected.Refusals)
	switch current := selected.Persistence.(type) {
	case *encrypted.File:
		return s.promoter.promote(ctx, current)
	case *fallback.InsecurePlaintextFile:
		// Now, because the warning should come before the sign-in, not after it.
		s.warnPlaintext(selected.Refusals)
	}
	return nil
}

// proveLock shows that the folder can be written and locked.
func (s *store) proveLock(ctx context.Context) error {
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	unlock, err := s.lock.Lock(ctx)
	if err != nil {
		return err
	}
	return unlock()
}

// boundedWait bounds a wait for other processes. It is not for a wait for a
// person.
func boundedWait(ctx context.Context) (context.Context, context.CancelFunc) {
	return within.Deadline(ctx, persistence.DefaultTimeout)
}

// openExisting opens the encrypted file that is there, with the source that its
// header names and no other. It returns nil if there is none, or if it was
// unrecoverable and is out of the way now.
func (s *store) openExisting(ctx context.Context) (*encrypted.File, error) {
	for {
		file, err := s.tryExisting(ctx)
		if !unrecoverable(err) && !errors.Is(err, persistence.ErrNotFound) {
			return file, err
		}
		if file == nil {
			return nil, nil
		}
		// Whether this process has set it aside or a faster one has: look again.
		if err := s.promoter.quarantine(ctx, file); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, openError(s.place.Encrypted, ctx.Err(), "")
		}
	}
}

// tryExisting is openExisting once. If it fails because the file is
// unrecoverable or has just disappeared, it also returns the file; ErrNotFound
// without a file means that there is none.
func (s *store) tryExisting(ctx context.Context) (*encrypted.File, error) {
	source, err := encrypted.StoredSource(s.place.Encrypted)
	if errors.Is(err, persistence.ErrCorrupt) {
		// Any source can move the file; this one can also delete the keys of older
		// files.
		file, openErr := s.open(layout.Keyring)
		if openErr != nil {
			return nil, openErr
		}
		return file, err
	}
	if err != nil {
		return nil, err
	}
	if s.cfg.Store != "" && s.cfg.Store != source {
		return nil, s.storedError(remedy.Errorf("Ask for the store that they are in, or remove the file to start anew.",
			"their key source is %q, and Config.Store asks for %q", source, s.cfg.Store))
	}
	if s.cfg.Order != nil && !slices.Contains(s.cfg.Order, source) {
		return nil, s.storedError(remedy.Errorf("Use the program that stored the tokens, or remove the file to start anew.",
			"%w: their key source is %q, which this program does not permit", persistence.ErrUnavailable, source))
	}
	file, err := s.open(source)
	if err != nil {
		return nil, s.storedError(err)
	}
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if source == layout.Keyring || source == layout.DPAPI {
		bounded, cancel = context.WithTimeout(ctx, keyringTimeout)
	}
	defer cancel()
	if err := file.Check(bounded); err != nil && !unrecoverable(err) {
		return nil, s.storedError(err)
	} else {
		return file, err
	}
}

// storedError is the refusal to start anew beside tokens that cannot be read
// now. It has the cause and the remedy of err, and no other place than the file.
func (s *store) storedError(err error) error {
	return &persistence.Error{Op: "open", Backend: "encrypted", Location: s.place.Encrypted,
		Err:    fmt.Errorf("encrypted tokens are stored here but cannot be read now, and nothing less safe was started beside them: %w", persistence.Cause(err)),
		Remedy: persistence.Remedy(err)}
}

// candidates are those that the program and the user ask for, in the order of
// preference. One that lacks what it needs says so when it is opened.
func (s *store) candidates() (all []fallback.Candidate) {
	for _, name := range s.cfg.order() {
		c := fallback.Candidate{Name: name, Open: func(ctx context.Context) (persistence.Persistence, error) { return s.openNew(ctx, name) }}
		switch name {
		case layout.Keyring, layout.DPAPI:
			c.Timeout = keyringTimeout
		case layout.Plaintext:
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
	file, err := s.open(source)
	if err != nil {
		return nil, err
	}
	return file, file.Check(ctx)
}

// open opens the encrypted file with keys from that source.
func (s *store) open(source string) (*encrypted.File, error) {
	keys, err := s.source(source)
	if err != nil {
		return nil, err
	}
	opts := &encrypted.Options{Name: s.cfg.Name, Lock: s.lock}
	if old, err := s.source(layout.Keyring); err == nil { // the file may have had its key there
		opts.OldSources = append(opts.OldSources, old.(encrypted.KeyDeleter))
	}
	return encrypted.New(s.place.Encrypted, keys, opts)
}

func (s *store) source(name string) (encrypted.KeySource, error) {
	switch name {
	case layout.Keyring:
		k := s.cfg.Keyring
		if k == nil {
			k = keyring.System()
		}
		return keyring.NewKeys(k, layout.KeyringService(s.cfg.Name)), nil
	case layout.DPAPI:
		return encrypted.DPAPI(), nil
	case layout.Passphrase:
		if s.cfg.Passphrase == nil {
			return nil, openError("", fmt.Errorf("%w: this program has no way to ask for a passphrase", persistence.ErrUnavailable),
				"The program's author can set Config.Passphrase.")
		}
		return encrypted.Passphrase(s.cfg.Passphrase, nil), nil
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
	return s.promoter.file()
}

func (s *store) warnPlaintext(refusals []fallback.Refusal) {
	var reasons, remedies []string
	for _, r := range refusals {
		reasons = append(reasons, r.Candidate+": "+strings.TrimSuffix(r.Reason(), "."))
		if remedy := r.Remedy(); remedy != "" {
			remedies = append(remedies, remedy)
		}
	}
	reason := "It was asked for."
	if len(refusals) > 0 {
		reason = "Nothing safer works: " + strings.Join(reasons, "; ") + "."
	}
	s.warn(fallback.Warning{
		Backend:  "plaintext",
		Location: s.place.Plaintext,
		Message:  fmt.Sprintf("Tokens are stored unencrypted in %s. Anybody who can read this file can sign in as you.", s.place.Plaintext),
		Reason:   reason,
		Remedy:   strings.Join(remedies, " "),
	})
}

// backend returns the backend in use. If that is the plaintext file and another
// process has stored something encrypted since, it chooses again, so that nobody
// goes on beside what is safer.
func (s *store) backend(ctx context.Context) (backend, error) {
	current := s.current.Load().backend
	if _, ok := current.(*fallback.InsecurePlaintextFile); !ok || !place.Exists(s.place.Encrypted) {
		return current, nil
	}
	return s.chooseAgain(ctx, current)
}

// chooseAgain chooses again, unless another goroutine has done so since current
// was in use.
func (s *store) chooseAgain(ctx context.Context, current backend) (backend, error) {
	select {
	case s.choosing <- struct{}{}:
		defer func() { <-s.choosing }()
	case <-ctx.Done():
		return nil, openError(s.place.Encrypted, ctx.Err(), "")
	}
	if now := s.current.Load().backend; now != current {
		return now, nil
	}
	stamp, _ := securefile.Stat(s.place.Encrypted)
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

func (s *store) Load(ctx context.Context) ([]byte, error) {
	data, _, err := s.LoadRevision(ctx)
	return data, err
}

func (s *store) Revision(ctx context.Context) (string, error) {
	b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	rev, err := b.Revision(ctx)
	if err != nil || rev != "" {
		return rev, err
	}
	if promoted, err := s.adopt(ctx, b); err != nil || !promoted {
		return "", err
	}
	return b.Revision(ctx)
}

// adopt promotes the plaintext file where b, which holds nothing, is the encrypted
// file: a process without a keyring was faster. It reports whether something is
// stored now.
func (s *store) adopt(ctx context.Context, b backend) (bool, error) {
	file, ok := b.(*encrypted.File)
	if !ok || !s.promoter.found() {
		return false, nil
	}
	if err := s.promoter.promote(ctx, file); err != nil {
		return false, err
	}
	rev, err := file.Revision(ctx)
	return rev != "", err
}

func (s *store) LoadRevision(ctx context.Context) ([]byte, string, error) {
	for {
		b, err := s.backend(ctx)
		if err != nil {
			return nil, "", err
		}
		data, rev, err := b.LoadRevision(ctx)
		repaired, repairErr := s.repair(ctx, b, data, rev, err)
		if repairErr != nil {
			return nil, "", repairErr
		}
		if !repaired {
			return data, rev, err
		}
	}
}

// repair looks at what a load from b gave, and reports whether to load again:
// what cannot be read any more is out of the way now, or plaintext was promoted,
// or another backend is in use.
func (s *store) repair(ctx context.Context, b backend, data []byte, rev string, err error) (repaired bool, _ error) {
	switch file := b.(type) {
	case *encrypted.File:
		switch {
		case unrecoverable(err):
			return true, s.promoter.quarantine(ctx, file)
		case errors.Is(err, persistence.ErrWrongKey) && s.otherSource(file):
			now, err := s.chooseAgain(ctx, b)
			return now != b, err
		case errors.Is(err, persistence.ErrNotFound):
			return s.adopt(ctx, b)
		}
	case *fallback.InsecurePlaintextFile:
		if err == nil && transfer.Malformed(data) {
			return true, s.promoter.quarantinePlaintext(ctx, file, rev)
		}
	}
	return false, nil
}

// otherSource reports whether the encrypted file has its key from elsewhere by
// now: a process with another choice of keys was faster, or the key was rotated.
func (s *store) otherSource(file *encrypted.File) bool {
	source, err := encrypted.StoredSource(s.place.Encrypted)
	return err == nil && source != file.Describe().KeySource
}

func (s *store) Save(ctx context.Context, data []byte) error {
	b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	return b.Save(ctx, data)
}

// SaveIf fails with ErrConflict after another choice: rev is of another backend
// then.
func (s *store) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	if rev == "" {
		if promoted, err := s.adopt(ctx, b); err != nil {
			return "", err
		} else if promoted {
			return "", openError(s.place.Encrypted, persistence.ErrConflict, "")
		}
	}
	return b.SaveIf(ctx, data, rev)
}

// Delete also removes a plaintext file that may be moved into the encrypted one:
// nothing would tell its next reader that it was to be deleted. It goes first,
// because beside the encrypted file it brings nothing back.
func (s *store) Delete(ctx context.Context) error {
	b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	if _, ok := b.(*encrypted.File); ok && s.promoter.found() {
		file, err := s.promoter.file()
		if err == nil {
			err = file.Delete(ctx)
		}
		if err != nil {
			return err
		}
	}
	return b.Delete(ctx)
}

func (s *store) DeleteIf(ctx context.Context, rev string) error {
	b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	return b.DeleteIf(ctx, rev)
}

// Lock locks the cache's files; a cache in memory locks in memory.
func (s *store) Lock(ctx context.Context) (func() error, error) {
	return s.locker().Lock(ctx)
}

func (s *store) LockName(ctx context.Context, name string) (func() error, error) {
	return s.locker().LockName(ctx, name)
}

func (s *store) locker() persistence.NamedLocker {
	if m, ok := s.current.Load().backend.(*persistence.Memory); ok {
		return m
	}
	return s.lock
}

func (s *store) Describe() persistence.Description { return s.current.Load().Describe() }

// warn tells the program, once for each message and remedy.
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
