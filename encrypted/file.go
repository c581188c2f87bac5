package encrypted

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
	"weak"

	"github.com/tokenkeep/tokenkeep/internal/filestore"
	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const backend = "encrypted"

// DefaultMaxSize is the largest file that a [File] reads or writes unless
// [Options] say otherwise: 64 MiB, several hundred times a large cache.
const DefaultMaxSize = filestore.DefaultMaxSize

// Options are a [File]'s settings; nil stands for their zero value.
type Options struct {
	// Name of the cache: UTF-8, at most 255 bytes, may be empty. It is bound into
	// the encryption. Under another name the file fails with ErrWrongKey, so the
	// files of two caches that share a key cannot be exchanged.
	Name string
	// Lock that the writers share; nil means one on a file beside the data:
	// NAME.lock for a file named NAME.enc as tokenkeep.Open names it, else the
	// file's own name with ".lock" added. A symbolic link is followed first.
	Lock *persistence.FileLock
	// MaxSize of the file in bytes; 0 means DefaultMaxSize.
	MaxSize int64
	// OldSources are other sources in which keys of this file may still be
	// stored, because the file had its key there before. They are asked only to
	// delete such keys. A program that offers several stores names them all, so
	// that a key does not stay in a keyring after a change to a passphrase.
	OldSources []KeyDeleter
}

// File is an encrypted file as a Persistence: a [persistence.Versioned], a
// [persistence.NamedLocker], a [persistence.SetAsider] and a
// [persistence.Describer]. It is safe for
// concurrent use, and any number of processes may have a File on the same path.
//
// A file that cannot be opened is never overwritten: every save first reads the
// stored header and proves that it has the key. So a save fails with ErrCorrupt
// on a damaged header, with ErrWrongKey if the key is another one or comes from
// another source, and with the source's own error if the key is not available.
// [File.SetAside] makes room.
//
// ErrKeyMissing means that the key is gone: the source stored it on this machine
// for this user and no longer has it. Methods that write have also made sure that
// the source keeps a new key, which is then the next file's. In every other case a
// missing key is ErrUnavailable: another machine, user or container may have it.
//
// However it is formatted, by package fmt or log/slog, a File shows its
// description only.
type File struct {
	store      *filestore.Store
	name       string
	oldSources []KeySource // those of Options
	machine    func() *machine

	mu            sync.Mutex // held for moments only
	source        KeySource
	cachedKey     masterKey // the last key that a header proved right
	pendingKey    masterKey // a new key that its source does not store, for the first save
	nextKey       string    // name of a key that was made for the file after one that cannot be read
	keysToCollect bool      // a key was recorded in the ledger
	notOwned      []string  // names of keys that were given up and belong to another folder

	keySem chan struct{} // has room for one: the call that asks a source for a key

	// What the last save wrote, for the holder of the lock to write into again. The
	// garbage collector may take it, unless it is also in kept.
	sealed weak.Pointer[sealed]
	kept   *sealed
}

// sealed is the memory of a file to be written.
type sealed struct{ memory []byte }

// maxKept is how many bytes of memory a File keeps between two saves at most.
const maxKept = 2 << 20

// masterKey holds its key behind a function, so that no verb of package fmt shows
// it.
type masterKey struct {
	source, ref string
	stored      bool          // whether its source stores it
	key         func() []byte // nil if there is none
}

// newMasterKey copies the key.
func newMasterKey(source KeySource, ref string, key []byte) masterKey {
	key = bytes.Clone(key)
	_, stores := source.(KeyDeleter)
	return masterKey{source.Source(), ref, stores, func() []byte { return key }}
}

var (
	_ persistence.Versioned   = (*File)(nil)
	_ persistence.NamedLocker = (*File)(nil)
	_ persistence.SetAsider   = (*File)(nil)
	_ persistence.Describer   = (*File)(nil)
)

// New returns the File at path. The first save creates missing folders. New
// resolves path and does no other I/O; [File.Check] fetches the key.
func New(path string, source KeySource, opts *Options) (*File, error) {
	if opts == nil {
		opts = new(Options)
	}
	f := &File{name: opts.Name, source: source, keySem: make(chan struct{}, 1), machine: thisMachine}
	for _, old := range opts.OldSources {
		f.oldSources = append(f.oldSources, old)
	}
	fail := func(err error) (*File, error) { return nil, wrap("open", path, err) }
	if path == "" {
		return fail(errors.New("the path is empty"))
	}
	for _, old := range opts.OldSources {
		if old == nil {
			return fail(errors.New("one of the old key sources is nil"))
		}
	}
	if err := checkSource(source); err != nil {
		return fail(err)
	}
	if len(f.name) > 255 || !utf8.ValidString(f.name) {
		return fail(errors.New("the cache's name is not UTF-8 of at most 255 bytes"))
	}
	if opts.MaxSize < 0 {
		return fail(errors.New("the maximum size is negative"))
	}
	size := opts.MaxSize
	if size == 0 {
		size = DefaultMaxSize
	}
	store, err := filestore.New(path, (*fileCodec)(f), filestore.Options{Backend: backend, MaxSize: size, HeadSize: maxHeader, Lock: opts.Lock})
	if err != nil {
		return fail(err)
	}
	f.store = store
	return f, nil
}

// StoredSource returns the word of the key source that the file at path needs, as
// [KeySource.Source] returns it. It asks for no key. The word is not
// authenticated: everybody who can write the file can change it. StoredSource fails with
// ErrNotFound where there is no file, and with ErrCorrupt or
// ErrUnsupportedVersion where the header cannot be read. On Windows it waits while
// another program keeps the file open and does not share it, until ctx ends, and for
// ten seconds at most.
func StoredSource(ctx context.Context, path string) (string, error) {
	resolved, err := securefile.Resolve(path)
	if err != nil {
		return "", wrap("open", path, err)
	}
	h, err := readHeader(ctx, resolved)
	if err != nil {
		return "", wrap("open", resolved, err)
	}
	return h.source, nil
}

// checkSource refuses a source that can never work, before it is needed.
func checkSource(s KeySource) error {
	if s == nil {
		return errors.New("the key source is nil")
	}
	if v, ok := s.(interface{ valid() error }); ok {
		if err := v.valid(); err != nil {
			return err
		}
	}
	if !isSource(s.Source()) {
		return errors.New("the key source's word does not have the form that a header can hold")
	}
	return nil
}

// Load implements [persistence.Persistence].
func (f *File) Load(ctx context.Context) ([]byte, error) {
	data, _, err := f.LoadRevision(ctx)
	return data, err
}

// LoadRevision implements [persistence.Versioned].
func (f *File) LoadRevision(ctx context.Context) (data []byte, rev string, err error) {
	err, _ = within.Retry(ctx, isReplaced, func() error {
		data, rev, err = f.store.LoadRevision(ctx)
		var notFound *keyNotFound
		if !errors.As(err, &notFound) {
			return err
		}
		// The file may have been replaced, and its key deleted, since it was read.
		if now, revErr := f.store.Revision(ctx); revErr == nil && now != rev {
			return errReplaced{err}
		}
		return err
	})
	// A read writes nothing, neither a key nor the lock file.
	return data, rev, wrap("load", f.store.Path(), f.resolve(ctx, false, err))
}

// errReplaced is the error of a read that should be tried again.
type errReplaced struct{ error }

func (e errReplaced) Unwrap() error { return e.error }

func isReplaced(err error) bool { return errors.As(err, new(errReplaced)) }

// finish makes err the error of an operation that writes. The call must not hold
// the lock.
func (f *File) finish(ctx context.Context, op string, err error) error {
	return wrap(op, f.store.Path(), f.resolve(ctx, true, err))
}

// Revision implements [persistence.Versioned]. It needs no key, and usually costs
// one stat.
func (f *File) Revision(ctx context.Context) (string, error) { return f.store.Revision(ctx) }

// Save implements [persistence.Persistence].
func (f *File) Save(ctx context.Context, data []byte) error {
	err := f.store.Save(ctx, data)
	if err == nil {
		f.collectIfNeeded(ctx, "")
	}
	return f.finish(ctx, "save", err)
}

// SaveIf implements [persistence.Versioned].
func (f *File) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	rev, err := f.store.SaveIf(ctx, data, rev)
	if err == nil {
		f.collectIfNeeded(ctx, "")
	}
	return rev, f.finish(ctx, "save", err)
}

// Delete removes the file, then the keys that it had, as far as sources store
// them and they were made for this file: copies of it, and what the disk may
// still hold of it, cannot be read any more. A key that cannot be deleted now is
// recorded in the lock file, and used or deleted later; [File.LeftKeys] names it.
// The key of a file that was copied here from another folder stays. So does a key
// that is also that of a file which was set aside from this one, or which this one
// was set aside from, until that file is deleted.
func (f *File) Delete(ctx context.Context) error {
	conflict := func(err error) bool { return errors.Is(err, persistence.ErrConflict) }
	err, _ := within.Retry(ctx, conflict, func() error {
		rev, err := f.recordKeys(ctx)
		switch {
		case err != nil:
			return err
		case rev == "": // there is no header to go by
			return f.store.Delete(ctx)
		default: // another revision may have other keys
			return f.store.DeleteIf(ctx, rev)
		}
	})
	if err == nil {
		f.setKeysToCollect(true) // another process may have recorded some
		f.collectIfNeeded(ctx, "")
	}
	return wrap("delete", f.store.Path(), err)
}

// DeleteIf implements [persistence.Versioned]. Apart from the revision it is
// [File.Delete].
func (f *File) DeleteIf(ctx context.Context, rev string) error {
	_, err := f.recordKeys(ctx)
	if err == nil {
		err = f.store.DeleteIf(ctx, rev)
	}
	if err == nil {
		f.setKeysToCollect(true) // another process may have recorded some
		f.collectIfNeeded(ctx, "")
	}
	return wrap("delete", f.store.Path(), err)
}

// Lock implements [persistence.Locker].
func (f *File) Lock(ctx context.Context) (unlock func() error, err error) {
	unlock, err = f.store.Lock(ctx)
	return unlock, wrap("lock", f.store.Path(), err)
}

// LockName implements [persistence.NamedLocker].
func (f *File) LockName(ctx context.Context, name string) (unlock func() error, err error) {
	unlock, err = f.store.LockName(ctx, name)
	return unlock, wrap("lock", f.store.Path(), err)
}

// SetAside renames the file, if its revision still is rev, and returns the new
// name: the file's own with ".damaged-" and the time in UTC added. It is for a
// file that cannot be used any more: one with ErrCorrupt or ErrKeyMissing. Its keys
// stay where they are, so that it opens again if it is repaired.
//
// A file whose key was not found is set aside only if the key is certainly gone.
// Otherwise, and where the source is locked or not available, SetAside changes
// nothing and fails with that error.
//
// The newest five such files stay. Older ones are removed, and with them their
// keys, unless another file here needs them, in the way of [File.Delete]. (The
// key of a file with a damaged header is not known. It stays too, unless an older
// file named it.)
func (f *File) SetAside(ctx context.Context, rev string) (newPath string, err error) {
	var keep string
	err = f.hold(ctx, func() error {
		if err := f.mayBeSetAside(ctx); err != nil {
			return err
		}
		f.mu.Lock()
		keep = f.nextKey
		f.mu.Unlock()
		f.collectKeys(ctx, keep) // a key that this file names is not for the next file to use
		return nil
	})
	if err == nil {
		newPath, err = f.store.SetAside(ctx, rev, func(old []string) error { return f.forget(ctx, old) })
	}
	if err == nil {
		f.collectIfNeeded(ctx, keep)
	}
	return newPath, wrap("set aside", f.store.Path(), err)
}

// Check shows that this File can store data, before anybody signs in. If there is a
// file, its key is fetched and checked against the header. If there is none, its key is
// made and, if the source stores keys, read back. The first save uses that key. If there
// is never a first save, the next process that checks or saves uses it.
func (f *File) Check(ctx context.Context) error {
	err := f.check(ctx)
	var notFound *keyNotFound
	if errors.Is(err, persistence.ErrNotFound) || errors.As(err, &notFound) {
		// Under the lock nobody is making, rotating or deleting the key.
		err = f.hold(ctx, func() error {
			err := f.check(ctx)
			if errors.Is(err, persistence.ErrNotFound) {
				_, err = f.firstKey(ctx)
			}
			return err
		})
	}
	return f.finish(ctx, "check", err)
}

func (f *File) check(ctx context.Context) error {
	h, err := f.header(ctx)
	if err == nil {
		_, _, err = f.unlock(ctx, h)
	}
	return err
}

// Rotate gives the file a new key, from the same source or another one, and
// encrypts its data again. From then on, to is this File's source. To change a
// passphrase, rotate the key. The replaced key stays in its source until the
// next Rotate or Delete, so that a copy of the file made before still opens. A
// process that is killed at any point leaves a file that opens.
//
// Rotate fails with ErrNotFound if nothing is stored, and also if to has the key
// that the file has already. Other processes whose Files have another source than
// to get ErrWrongKey from then on. [File.LeftKeys] names older keys that could not
// be deleted.
func (f *File) Rotate(ctx context.Context, to KeySource) error {
	err := checkSource(to)
	if err == nil {
		err = f.rotate(ctx, to)
	}
	return f.finish(ctx, "rotate", err)
}

func (f *File) rotate(ctx context.Context, to KeySource) error {
	from := f.keySource()
	var made masterKey
	err := f.store.Rewrite(ctx, func(ctx context.Context, data, head []byte) ([][]byte, string, error) {
		old, _, err := parseHead(head)
		if err != nil {
			return nil, "", err
		}
		// A key that was given up must not come back, even if it could not be
		// deleted at the time.
		f.collectKeys(ctx, "", to)
		// It is recorded before the new header drops it, so that a kill in between
		// does not leave it behind.
		if err := f.giveUp(old.file.previous); err != nil {
			return nil, "", placed(err)
		}
		if made, err = f.makeKey(ctx, to, f.newKeyID(to)); err != nil {
			return nil, "", placed(err)
		}
		h := f.newHeader(made)
		h.file.previous = old.keyName()
		if h.keyName() == old.keyName() {
			return nil, "", placed(remedy.Errorf("Give a source that has another key.", "the new key is the one that the file has already"))
		}
		return f.encode(h, made.key(), data)
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.source, f.cachedKey, f.pendingKey = to, made, masterKey{}
	f.mu.Unlock()
	// What fails here stays recorded.
	_ = f.hold(ctx, func() error { f.collectKeys(ctx, "", from); return nil })
	return nil
}

// newHeader returns a header for a new key, which names where it is stored.
func (f *File) newHeader(key masterKey) *header {
	h := &header{source: key.source, ref: key.ref}
	if key.stored {
		h.file = f.machine().origin(key.source, refID(key.ref))
	}
	return h
}

// newKeyID returns an id for a new key of source.
func (f *File) newKeyID(source KeySource) string {
	if _, stores := source.(KeyDeleter); stores {
		return f.newOwnedID()
	}
	return newID()
}

// header reads the header of the file that is there now.
func (f *File) header(ctx context.Context) (*header, error) {
	return readHeader(ctx, f.store.Path())
}

func readHeader(ctx context.Context, path string) (*header, error) {
	head, _, err := securefile.ReadHead(ctx, path, maxHeader)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, persistence.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	h, _, err := parseHead(head)
	return h, err
}

// parseHead is parse with remedies.
func parseHead(head []byte) (*header, int, error) {
	h, size, err := parse(head)
	switch {
	case errors.Is(err, persistence.ErrCorrupt):
		return nil, 0, placed(remedy.With(remedyCorrupt, err))
	case errors.Is(err, persistence.ErrUnsupportedVersion):
		return nil, 0, placed(remedy.With("Update this program: the file is sound and needs a newer one.", err))
	}
	return &h, size, err
}

const remedyCorrupt = "Rename the file and sign in again. What it held is lost."

// fileCodec is what the store needs to know of the format.
type fileCodec File

// Revision implements filestore.Codec.
func (c *fileCodec) Revision(head []byte) (string, error) {
	h, _, err := parseHead(head)
	if err != nil {
		return "", err
	}
	return h.revision(), nil
}

// Decode implements filestore.Codec. The data overwrites the ciphertext.
func (c *fileCodec) Decode(ctx context.Context, file []byte) (data []byte, rev string, err error) {
	h, size, err := parseHead(file)
	if err != nil {
		return nil, "", err
	}
	if len(file)-size < tagSize { // before anybody is asked for a key
		return nil, h.revision(), placed(remedy.With(remedyCorrupt, corrupt("it is cut short")))
	}
	_, d, err := (*File)(c).unlock(ctx, h)
	if err != nil {
		return nil, h.revision(), placed(err)
	}
	data, err = d.open(file, size)
	if errors.Is(err, persistence.ErrCorrupt) {
		err = placed(remedy.With(remedyCorrupt, err))
	}
	return data, h.revision(), err
}

// Encode implements filestore.Codec. It runs under the lock.
func (c *fileCodec) Encode(ctx context.Context, data, head []byte) ([][]byte, string, error) {
	f := (*File)(c)
	if head == nil {
		key, err := f.firstKey(ctx)
		if err != nil {
			return nil, "", placed(err)
		}
		f.mu.Lock()
		f.cachedKey, f.nextKey = key, ""
		f.mu.Unlock()
		return f.encode(f.newHeader(key), key.key(), data)
	}
	old, _, err := parseHead(head)
	if err != nil {
		return nil, "", err
	}
	// The commitment covers the key line, so what unlock has accepted may be
	// written again.
	key, _, err := f.unlock(ctx, old)
	if err != nil {
		return nil, "", placed(err)
	}
	return f.encode(&header{source: old.source, ref: old.ref, file: old.file}, key, data)
}

// encode seals data under a new salt. The salt alone makes the keys of this save
// its own. The next encode overwrites what it returns, so it runs under the lock, and
// what it returns is written before that is released.
func (f *File) encode(h *header, key, data []byte) ([][]byte, string, error) {
	rand.Read(h.salt[:]) // never fails
	d, err := derive(key, h, f.name)
	if err != nil {
		return nil, "", err
	}
	file, err := d.seal(h, data, f.sealedMemory)
	if err != nil {
		return nil, "", err
	}
	return [][]byte{file}, h.revision(), nil
}

// sealedMemory returns an empty slice with room for n bytes of ciphertext: fresh
// memory takes longer to get than to encrypt. It runs under the lock.
func (f *File) sealedMemory(n int) []byte {
	s := f.sealed.Value()
	if s == nil || cap(s.memory) < n {
		s = &sealed{make([]byte, 0, n+n/16)} // most caches grow a little with each save
		f.sealed, f.kept = weak.Make(s), nil
		if cap(s.memory) <= maxKept {
			f.kept = s
		}
	}
	return s.memory
}

// unlock returns the key that h was written with, and what derives from it. It
// shows that h, with its whole key line, is authentic.
func (f *File) unlock(ctx context.Context, h *header) ([]byte, *derived, error) {
	source := f.keySource()
	if h.source != source.Source() {
		return nil, nil, remedy.Errorf(fmt.Sprintf("Open the file with a key from %q, or remove it and sign in again.", h.source),
			"%w: the file's key is from %q, and this program has one from %q", persistence.ErrWrongKey, h.source, source.Source())
	}
	if key, d := f.tryCachedKey(h); d != nil {
		return key, d, nil
	}
	select {
	case f.keySem <- struct{}{}:
		defer func() { <-f.keySem }()
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("waiting for another call that asks for the key: %w", context.Cause(ctx))
	}
	if key, d := f.tryCachedKey(h); d != nil { // the other call got it
		return key, d, nil
	}
	key, err := source.Key(ctx, h.ref)
	if err != nil {
		err = located(err)
		if errors.Is(err, persistence.ErrKeyMissing) {
			err = &keyNotFound{err, source, h}
		}
		return nil, nil, err
	}
	d, err := derive(key, h, f.name)
	if err != nil {
		return nil, nil, err
	}
	if !d.commits(h) {
		hint := ""
		if s, ok := source.(interface{ hint(ref string) string }); ok {
			hint = s.hint(h.ref)
		}
		return nil, nil, remedy.Errorf("Try again with the key or the passphrase, and the cache name, that the file was written with.",
			"%w: the header was written with another key or for another cache name, or it was changed%s", persistence.ErrWrongKey, hint)
	}
	k := newMasterKey(source, h.ref, key)
	f.mu.Lock()
	f.cachedKey = k
	f.mu.Unlock()
	return k.key(), d, nil
}

// tryCachedKey is unlock with the key in memory. It returns nothing if h has
// another key.
func (f *File) tryCachedKey(h *header) ([]byte, *derived) {
	f.mu.Lock()
	k := f.cachedKey
	f.mu.Unlock()
	if k.key == nil || k.source != h.source || k.ref != h.ref {
		return nil, nil
	}
	d, err := derive(k.key(), h, f.name)
	if err != nil || !d.commits(h) {
		return nil, nil
	}
	return k.key(), d
}

// firstKey makes the key for a path where there is no file. It runs under the
// lock.
func (f *File) firstKey(ctx context.Context) (masterKey, error) {
	f.mu.Lock()
	source, pending := f.source, f.pendingKey
	f.mu.Unlock()
	if pending.key != nil {
		return pending, nil
	}
	made, err := f.makeKey(ctx, source, f.pendingID(ctx, source, nil))
	if err != nil {
		return masterKey{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if made.stored {
		f.keysToCollect = true // and another process may delete the key before it is used: ask again
	} else {
		f.pendingKey = made
	}
	return made, nil
}

// pendingID returns the id for the key of the next file: that of a recorded key
// that the file with header h, nil if there is none, does not need, or a new one.
func (f *File) pendingID(ctx context.Context, source KeySource, h *header) string {
	if _, stores := source.(KeyDeleter); stores {
		return cmp.Or(f.orphanKey(ctx, source.Source(), h), f.newOwnedID())
	}
	return newID()
}

// makeKey makes the key of that id, under the lock. A key that will be stored is
// recorded first, and read back. The record is removed if certainly nothing was stored.
func (f *File) makeKey(ctx context.Context, source KeySource, id string) (masterKey, error) {
	_, stores := source.(KeyDeleter)
	name, recorded := source.Source()+"/"+id, false
	if stores {
		recorded = slices.Contains(f.ledger().Keys(f.store.Path()), name) // an earlier process may have stored it
		if err := f.record(name); err != nil {
			return masterKey{}, err
		}
	}
	ref, key, err := source.NewKey(ctx, id)
	if err != nil {
		if stores && !recorded && ledger.IsNotStored(err) {
			// A record that is not needed does no harm.
			_ = f.ledger().RemoveKeys(f.store.Path(), func(n string) bool { return n == name })
		}
		return masterKey{}, notOfTheFile(located(err))
	}
	ref, file, ok := splitRef(ref)
	if !ok || file != (fileParams{}) || len(key) != keySize || stores && refID(ref) != id {
		return masterKey{}, fmt.Errorf("the key source %q made a malformed key or reference", source.Source())
	}
	made := newMasterKey(source, ref, key)
	if stores {
		stored, err := source.Key(ctx, ref)
		if err != nil {
			return masterKey{}, notOfTheFile(located(err))
		}
		if subtle.ConstantTimeCompare(stored, made.key()) != 1 {
			return masterKey{}, remedy.Errorf("Look for another program that uses the same place for its keys.",
				"%w: the key read back from %q is not the one that was stored", persistence.ErrUnavailable, source.Source())
		}
	}
	return made, nil
}

// notOfTheFile turns ErrKeyMissing and ErrCorrupt from making a key into
// ErrUnavailable, so that callers do not take a stored file for unrecoverable.
func notOfTheFile(err error) error {
	if !errors.Is(err, persistence.ErrKeyMissing) && !errors.Is(err, persistence.ErrCorrupt) {
		return err
	}
	return remedy.Errorf(persistence.Remedy(err), "%w: the key source did not keep the key that it made: %v", persistence.ErrUnavailable, err)
}

func (f *File) keySource() KeySource {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.source
}

func (f *File) hold(ctx context.Context, fn func() error) error {
	return f.store.FileLock().Hold(ctx, fn)
}

// wrap makes err the error of an operation on the file. It takes over the cause
// and the remedy of an error of the store, the lock or a source.
func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	e := &persistence.Error{Op: op, Backend: backend, Location: path, Err: located(err), Remedy: persistence.Remedy(err)}
	if inner, ok := err.(*persistence.Error); ok && (inner.Location == "" || inner.Location == path) {
		e.Err = inner.Err
	}
	return e
}

// placed is err for the store, which adds the operation and the place.
func placed(err error) error {
	return &persistence.Error{Err: err, Remedy: persistence.Remedy(err)}
}

// located returns err so that its text says where it happened, but neither what
// was tried there nor the remedy: the error around it says both.
func located(err error) error {
	if e, ok := err.(*persistence.Error); ok {
		return locatedError{e}
	}
	return err
}

type locatedError struct{ err *persistence.Error }

func (e locatedError) Error() string {
	place := strings.TrimSpace(e.err.Backend + " " + e.err.Location)
	if place == "" {
		return e.err.Err.Error()
	}
	return place + ": " + e.err.Err.Error()
}
func (e locatedError) Unwrap() error { return e.err }
