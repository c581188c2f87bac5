package tokenkeep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
// names its key's source, and the plaintext one. The plaintext file is used only if
// there is no encrypted file. The promoter decides what happens to one beside an
// encrypted file.
type store struct {
	cfg      Config
	ofUser   bool // the folder is the platform's, which the user can change
	place    place.Place
	lock     *persistence.FileLock
	promoter *promoter

	current  atomic.Pointer[inUse]
	choosing chan struct{} // full while the choice is made again
	failed   failedChoice  // guarded by choosing

	warned sync.Map // the keys are what the user was told
	noDir  error    // why there is no folder, where Order ends with memory
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
	persistence.SetAsider
	persistence.Describer
} = (*store)(nil)

func newStore(cfg Config) (*store, error) {
	at, err := place.Of(cfg.Dir, cfg.Name)
	if err != nil {
		err = openError(cfg.Dir, err, persistence.Remedy(err))
		if cfg.Store != layout.Memory && !cfg.permits(layout.Memory) { // which uses no file
			return nil, err
		}
	}
	s := &store{
		cfg:      cfg,
		place:    at,
		lock:     persistence.NewFileLock(at.Lock),
		choosing: make(chan struct{}, 1),
		noDir:    err,
	}
	s.promoter = &promoter{
		cache:     layout.Cache{Dir: cfg.Dir, Name: cfg.Name},
		place:     at,
		lock:      s.lock,
		ledger:    ledger.In(at.Lock),
		permitted: cfg.permitsPlaintext(),
		toKernel:  cfg.Store == layout.Kernel,
		warn:      s.warn,
		ended:     s.logEnd,
		notMoved:  func(w fallback.Warning) error { s.warn(w); return nil },
	}
	return s, nil
}

// choose chooses by what is stored and what works now, and logs the choice.
func (s *store) choose(ctx context.Context) error {
	news, err := s.selectBackend(ctx)
	if err == nil {
		s.logChoice(ctx, news)
	}
	return err
}

// selectBackend is choose without the log. news reports whether nothing was
// stored, so that the choice decides where the next sign-in goes.
func (s *store) selectBackend(ctx context.Context) (news bool, err error) {
	if s.cfg.Store == layout.Memory {
		s.use(persistence.NewMemory(), ByUser, nil)
		return false, nil
	}
	if s.noDir != nil {
		return true, s.useMemory(ctx, s.noDir)
	}
	existing, err := s.openExisting(ctx)
	if err != nil {
		return false, err
	}
	if existing != nil {
		s.use(existing, ByStored, nil)
		return false, s.promoter.promote(ctx, existing)
	}
	// What all candidates need comes first, so that its failure is not taken for
	// that of one of them, and does not lead to something less safe.
	if err := s.proveLock(ctx); err != nil {
		if s.readPlaintext(ctx, err) {
			return false, nil
		}
		return true, s.useMemory(ctx, err)
	}
	news = !s.promoter.found()
	selected, err := fallback.Choose(ctx, s.candidates()...)
	if ctx.Err() != nil {
		return news, openError(s.cfg.Dir, ctx.Err(), "")
	}
	if err != nil {
		return news, err
	}
	for _, r := range selected.Refusals {
		if errors.Is(r.Err, persistence.ErrLockTimeout) {
			return news, r.Err
		}
	}
	s.use(selected.Persistence.(backend), ByOrder, selected.Refusals)
	if news { // now, because a warning should come before the sign-in, not after it
		s.warnOf(selected.Candidate, selected.Refusals)
	}
	if file, ok := selected.Persistence.(*encrypted.File); ok {
		return news, s.promoter.promote(ctx, file)
	}
	return news, nil
}

// useMemory keeps the tokens in memory alone if err prevents any file, the program
// permits that and nothing is stored. Else it fails with err.
func (s *store) useMemory(ctx context.Context, err error) error {
	if !s.cfg.permits(layout.Memory) || ctx.Err() != nil || errors.Is(err, persistence.ErrLockTimeout) {
		return err
	}
	memory, memoryErr := s.openMemory()
	if memoryErr != nil {
		return err
	}
	var refusals []fallback.Refusal
	for _, name := range s.cfg.order() {
		if name != layout.Memory {
			refusals = append(refusals, fallback.Refusal{Candidate: name, Err: err})
		}
	}
	s.use(memory, ByOrder, refusals)
	s.warnOf(layout.Memory, refusals)
	return nil
}

// openMemory returns a cache in memory. It fails if something is stored, or may be.
func (s *store) openMemory() (*persistence.Memory, error) {
	here := layout.Cache{Dir: s.cfg.Dir, Name: s.cfg.Name}
	for _, path := range []string{here.Encrypted(), here.Plaintext()} {
		_, err := os.Lstat(path)
		if s.cfg.Dir != "" && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, openError(path, errors.New("the tokens are not kept in memory, because there are stored ones"), "")
		}
	}
	return persistence.NewMemory(), nil
}

// proveLock shows that the folder can be written and locked.
func (s *store) proveLock(ctx context.Context) error {
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	unlock, err := s.lock.Lock(ctx)
	switch {
	case err == nil:
		return unlock()
	case isReadOnly(err):
		return withVariable(err, s.ofUser)
	}
	return err
}

// isReadOnly reports whether err says that a folder cannot be written.
func isReadOnly(err error) bool {
	return securefile.IsReadOnly(err) || errors.Is(err, fs.ErrPermission)
}

// readPlaintext uses the plaintext file if it can be read, although the folder cannot be
// written, for the reason why. The user is told that nothing can be saved.
func (s *store) readPlaintext(ctx context.Context, why error) bool {
	if !isReadOnly(why) || !s.promoter.found() {
		return false
	}
	file, err := s.promoter.file()
	if err != nil {
		return false
	}
	if _, err := file.Load(ctx); err != nil {
		return false
	}
	s.use(file, ByStored, nil)
	s.warn(fallback.Warning{
		Backend:  layout.Plaintext,
		Location: s.place.Plaintext,
		Message:  fmt.Sprintf("Tokens are stored unencrypted in %s. They can be used, but what changes cannot be saved.", s.place.Plaintext),
		Reason:   sentence(persistence.Cause(why).Error()),
		Remedy:   persistence.Remedy(why),
	})
	return true
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
		// This process has set it aside, or a faster one has. In both cases look again.
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
	source, err := encrypted.StoredSource(ctx, s.place.Encrypted)
	if errors.Is(err, persistence.ErrCorrupt) {
		// Any source can move the file; this one can also delete the keys of older
		// files.
		file, openErr := s.open(s.anySource())
		if openErr != nil {
			return nil, openErr
		}
		return file, err
	}
	if err != nil {
		return nil, err
	}
	candidate := candidateOf(source)
	if s.cfg.Store != "" && s.cfg.Store != candidate {
		return nil, s.storedError(remedy.Errorf("Set the program's store to the one that they are in, or remove the file and sign in again.",
			"their key source is %q, and the store %q was asked for", source, s.cfg.Store))
	}
	if s.cfg.Order != nil && !slices.Contains(s.cfg.Order, candidate) {
		return nil, s.storedError(remedy.Errorf("Use the program that stored the tokens, or remove the file and sign in again.",
			"%w: their key source is %q, which this program does not permit", persistence.ErrUnavailable, source))
	}
	sources := s.cfg.sources(source)
	if len(sources) == 0 {
		return nil, s.storedError(s.cfg.sourceMissing(source))
	}
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if source == layout.Keyring || source == layout.DPAPI {
		bounded, cancel = context.WithTimeout(ctx, keyringTimeout)
	}
	defer cancel()
	var first error
	for _, keys := range sources { // the program's own key, and the one that it had before
		file, err := s.open(keys)
		if err != nil {
			return nil, s.storedError(err)
		}
		err = file.Check(bounded)
		if err == nil || unrecoverable(err) {
			return file, err
		}
		first = cmp.Or(first, err)
		if !errors.Is(err, persistence.ErrWrongKey) {
			break
		}
	}
	return nil, s.storedError(first)
}

// storedError is the error if stored tokens cannot be read now: Open starts nothing
// beside them. It has the cause and the remedy of err, and the file as its place.
func (s *store) storedError(err error) error {
	return &persistence.Error{Op: "open", Backend: "encrypted", Location: s.place.Encrypted,
		Err:    fmt.Errorf("encrypted tokens are stored here but cannot be read now, and nothing less safe was started beside them: %w", persistence.Cause(err)),
		Remedy: persistence.Remedy(err)}
}

// openNew opens the encrypted file where there is none yet, by making its key.
func (s *store) openNew(ctx context.Context, candidate string) (*encrypted.File, error) {
	keys, err := s.cfg.newSource(candidate)
	if err != nil {
		return nil, err
	}
	file, err := s.open(keys)
	if err != nil {
		return nil, err
	}
	return file, file.Check(ctx)
}

// open opens the encrypted file with keys from that source.
func (s *store) open(keys encrypted.KeySource) (*encrypted.File, error) {
	return encrypted.New(s.place.Encrypted, keys, &encrypted.Options{Name: s.cfg.Name, Lock: s.lock, OldSources: s.cfg.deleters()})
}

// anySource returns a source that deletes keys, if the program has one.
func (s *store) anySource() encrypted.KeySource {
	if all := s.cfg.deleters(); len(all) > 0 {
		return all[0]
	}
	return encrypted.DPAPI()
}

// warnOf warns, before the first sign-in, of a candidate that does not keep the
// tokens safely or for long.
func (s *store) warnOf(candidate string, refusals []fallback.Refusal) {
	w := fallback.Warning{Reason: "It was asked for."}
	if len(refusals) > 0 {
		w.Reason, w.Remedy = why(refusals)
	}
	switch candidate {
	case layout.Plaintext:
		w.Backend, w.Location = "plaintext", s.place.Plaintext
		w.Message = fmt.Sprintf("Tokens are stored unencrypted in %s. Anybody who can read this file can sign in as you.", s.place.Plaintext)
	case layout.Kernel:
		w.Backend, w.Location = "encrypted", s.place.Encrypted
		w.Message = "You stay signed in until this machine is restarted, or until three days have passed without use: the key is only in the memory of the Linux kernel."
	case layout.Memory:
		w.Backend, w.Location = "memory", s.cfg.Dir
		w.Message = "Tokens are not stored. You will have to sign in again when this program is started again."
	default:
		return
	}
	s.warn(w)
}

// isWarnedOf reports whether warnOf warns of a new sign-in that is stored there.
func isWarnedOf(d persistence.Description) bool { return !d.Encrypted || d.KeySource == layout.Kernel }

// why returns why the candidates that were preferred do not work, and what helps. What
// is the same for several is there once.
func why(refusals []fallback.Refusal) (reason, remedy string) {
	var reasons, remedies []string
	names := map[string][]string{}
	for _, r := range refusals {
		text := strings.TrimSuffix(r.Reason(), ".")
		if names[text] == nil {
			reasons = append(reasons, text)
		}
		names[text] = append(names[text], r.Candidate)
		if help := r.Remedy(); help != "" && !slices.Contains(remedies, help) {
			remedies = append(remedies, help)
		}
	}
	for i, text := range reasons {
		reasons[i] = strings.Join(names[text], ", ") + ": " + text
	}
	return "Nothing better works: " + strings.Join(reasons, "; ") + ".", strings.Join(remedies, " ")
}

// backend returns the backend in use. If that is the plaintext file and another
// process has stored something encrypted since, it chooses again, so that no process
// stays with what is less safe. It also chooses again if its key is in the kernel's
// keyring, nothing is stored with it yet, and another process has stored plaintext.
func (s *store) backend(ctx context.Context) (backend, error) {
	current := s.current.Load().backend
	again := false
	switch b := current.(type) {
	case *fallback.InsecurePlaintextFile:
		again = place.Exists(s.place.Encrypted)
	case *encrypted.File: // plaintext is not moved to the kernel's keyring, so it stays in use
		again = b.Describe().KeySource == layout.Kernel && !s.promoter.toKernel && s.promoter.found() && !place.Exists(s.place.Encrypted)
	}
	if !again {
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

// repair examines the result of a load from b, and reports whether to load again: a file
// that can no longer be read was set aside, or plaintext was promoted, or another backend
// is in use.
func (s *store) repair(ctx context.Context, b backend, data []byte, rev string, err error) (repaired bool, _ error) {
	switch file := b.(type) {
	case *encrypted.File:
		switch {
		case unrecoverable(err):
			return true, s.promoter.quarantine(ctx, file)
		case errors.Is(err, persistence.ErrWrongKey) && (s.otherSource(ctx, file) || s.cfg.OldKey != nil):
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

// SetAside moves the file out of the way whose data the program could not use.
// The user is told where it is, so SetAside returns no path.
func (s *store) SetAside(ctx context.Context, rev string) (newPath string, err error) {
	b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	file, ok := b.(persistence.SetAsider)
	if !ok { // in memory
		return "", openError("", errors.ErrUnsupported, "")
	}
	to, err := file.SetAside(ctx, rev)
	if errors.Is(err, persistence.ErrConflict) {
		return "", err
	}
	return "", s.promoter.quarantined(b.Describe(), to, err, errMalformed)
}

// otherSource reports whether the encrypted file has its key from elsewhere by
// now: a process with another choice of keys was faster, or the key was rotated.
func (s *store) otherSource(ctx context.Context, file *encrypted.File) bool {
	source, err := encrypted.StoredSource(ctx, s.place.Encrypted)
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

// Delete also removes a plaintext file that may be moved into the encrypted one, because
// its next reader could not know that it was deleted. That file goes first: while the
// encrypted file is there, it brings nothing back.
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
	if _, before := s.warned.LoadOrStore(w.Message+w.Remedy, true); before {
		return
	}
	if s.cfg.Warn != nil {
		s.cfg.Warn(w)
		return
	}
	s.logger().Warn("tokenkeep: "+w.Message, "backend", w.Backend, "location", w.Location, "reason", w.Reason, "remedy", w.Remedy)
}

// logEnd logs that a sign-in which was kept for a time has ended. That is no
// damage, and nothing to warn of.
func (s *store) logEnd(message string) {
	s.logger().Info("tokenkeep: "+message, "location", s.place.Encrypted)
}
