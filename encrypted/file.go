package encrypted

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/internal/filestore"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const backend = "encrypted"

// DefaultMaxSize is the largest file that a [File] reads or writes unless
// [Options] say otherwise: 64 MiB, several hundred times a large cache.
const DefaultMaxSize = filestore.DefaultMaxSize

// Options are a [File]'s settings; nil stands for their zero value.
type Options struct {
	// Name of the cache. It is bound into the encryption: under another name
	// the file fails with ErrWrongKey, so that the files of two caches that
	// share a key cannot be exchanged. UTF-8, at most 255 bytes; may be empty.
	Name string
	// Lock that the writers share; nil means one on a file beside the data:
	// NAME.lock for a file named NAME.enc as tokenkeep.Open names it, else the
	// file's own name with ".lock" added. A symbolic link is followed first.
	Lock *persistence.FileLock
	// MaxSize of the file in bytes; 0 means DefaultMaxSize.
	MaxSize int64
}

// File is an encrypted file as a Persistence: a [persistence.Versioned], a
// [persistence.NamedLocker] and a [persistence.Describer]. It is safe for
// concurrent use, and any number of processes may have one on the same path.
//
// A file that cannot be opened is never overwritten: every save first reads
// the header that is there and proves that it has the key. So a save fails
// with ErrCorrupt on a damaged header, with ErrWrongKey if the key is another
// or comes from another source, and with the source's own error if the key
// cannot be had. [File.SetAside] makes room.
type File struct {
	store *filestore.Store
	name  string

	mu     sync.Mutex // held for moments only
	source KeySource
	known  masterKey // the last key that a header proved right
	made   masterKey // a new key that its source does not store, for the first save
	untidy bool      // a key was made and noted

	asking chan struct{} // room for one: who is asking a source for a key
}

// masterKey has its key behind a function, so that a File that is printed by
// mistake shows an address, whatever the verb.
type masterKey struct {
	source, ref string
	key         func() []byte // nil if there is none
}

// remember copies the key.
func remember(source, ref string, key []byte) masterKey {
	key = bytes.Clone(key)
	return masterKey{source, ref, func() []byte { return key }}
}

var (
	_ persistence.Versioned   = (*File)(nil)
	_ persistence.NamedLocker = (*File)(nil)
	_ persistence.Describer   = (*File)(nil)
)

// New returns the File at path, of which the folder is made when something is
// saved. It does no more I/O than resolving path, and asks for no key;
// [File.Prove] does.
func New(path string, source KeySource, opts *Options) (*File, error) {
	if opts == nil {
		opts = new(Options)
	}
	f := &File{name: opts.Name, source: source, asking: make(chan struct{}, 1)}
	fail := func(err error) (*File, error) { return nil, wrap("open", path, err) }
	if path == "" {
		return fail(errors.New("the path is empty"))
	}
	if err := checkSource(source); err != nil {
		return fail(err)
	}
	if len(f.name) > 255 || !utf8.ValidString(f.name) {
		return fail(errors.New("the cache's name is not UTF-8 of at most 255 bytes"))
	}
	if opts.MaxSize < 0 {
		return fail(errors.New("the maximal size is negative"))
	}
	size := opts.MaxSize
	if size == 0 {
		size = DefaultMaxSize
	}
	store, err := filestore.New(path, (*codec)(f), filestore.Options{Backend: backend, MaxSize: size, HeadSize: maxHeader, Lock: opts.Lock})
	if err != nil {
		return fail(err)
	}
	f.store = store
	return f, nil
}

// StoredSource returns what [KeySource.Source] of the source has to be that the
// file at path needs. It asks for no key. It fails with ErrNotFound where there
// is no file, and with ErrCorrupt or ErrUnsupportedVersion where the header
// cannot be read.
func StoredSource(path string) (string, error) {
	resolved, err := securefile.Resolve(path)
	if err != nil {
		return "", wrap("open", path, err)
	}
	h, err := readHeader(resolved)
	if err != nil {
		return "", wrap("open", resolved, err)
	}
	return h.source, nil
}

// checkSource finds a source that can never work, before it is needed.
func checkSource(s KeySource) error {
	if s == nil {
		return errors.New("no key source is given")
	}
	if v, ok := s.(interface{ valid() error }); ok {
		if err := v.valid(); err != nil {
			return err
		}
	}
	if !isSource(s.Source()) {
		return errors.New("the key source's word has not the form that a header can hold")
	}
	return nil
}

// Describe implements [persistence.Describer].
func (f *File) Describe() persistence.Description {
	return persistence.Description{Backend: backend, Location: f.store.Path(), Encrypted: true, KeySource: f.keySource().Source()}
}

// Load implements [persistence.Persistence].
func (f *File) Load(ctx context.Context) ([]byte, error) {
	data, _, err := f.LoadRevision(ctx)
	return data, err
}

// LoadRevision implements [persistence.Versioned].
func (f *File) LoadRevision(ctx context.Context) ([]byte, string, error) {
	for {
		data, rev, err := f.store.LoadRevision(ctx)
		if !errors.Is(err, persistence.ErrKeyMissing) {
			return data, rev, err
		}
		// Was the file replaced, and its key deleted, after the file was read?
		if now, revErr := f.store.Revision(ctx); revErr != nil || now == rev {
			return nil, rev, err
		}
	}
}

// Revision implements [persistence.Versioned]. It needs no key, and mostly
// costs a stat.
func (f *File) Revision(ctx context.Context) (string, error) { return f.store.Revision(ctx) }

// Save implements [persistence.Persistence].
func (f *File) Save(ctx context.Context, data []byte) error {
	err := f.store.Save(ctx, data)
	if err == nil {
		f.tidy(ctx)
	}
	return wrap("save", f.store.Path(), err)
}

// SaveIf implements [persistence.Versioned].
func (f *File) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	rev, err := f.store.SaveIf(ctx, data, rev)
	if err == nil {
		f.tidy(ctx)
	}
	return rev, wrap("save", f.store.Path(), err)
}

// Delete removes the file, then its key and the previous one if the source
// stores keys: copies of the file, and what the disk may still hold of it,
// cannot be read any more. If a key cannot be deleted now, it is noted beside
// the lock, and used or deleted later.
func (f *File) Delete(ctx context.Context) error {
	for {
		rev, err := f.noteKeys(ctx)
		switch {
		case err != nil:
		case rev == "": // there is no header to go by
			err = f.store.Delete(ctx)
		default:
			err = f.store.DeleteIf(ctx, rev)
			if errors.Is(err, persistence.ErrConflict) && ctx.Err() == nil {
				continue // and its keys may be others now
			}
		}
		if err == nil {
			f.tidy(ctx)
		}
		return wrap("delete", f.store.Path(), err)
	}
}

// DeleteIf implements [persistence.Versioned]. It is Delete otherwise.
func (f *File) DeleteIf(ctx context.Context, rev string) error {
	_, err := f.noteKeys(ctx)
	if err == nil {
		err = f.store.DeleteIf(ctx, rev)
	}
	if err == nil {
		f.tidy(ctx)
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

// SetAside renames the file, if its revision still is rev, to a name beside it
// that it returns: the file's own with ".damaged-" and the time in UTC. It is
// for a file that is certainly of no more use: one with ErrCorrupt or
// ErrKeyMissing. Its keys stay where they are, so that it opens again should it
// be mended.
//
// The newest five such files stay. Older ones are removed, and with them the
// keys that they name and no other file here does, as far as this File's source
// stores them. (What key a file with a damaged header had is not known. That key
// stays too, unless an older file named it.)
func (f *File) SetAside(ctx context.Context, rev string) (newPath string, err error) {
	// A key that the file names is not for the next file to use.
	if err = f.hold(ctx, func() error { f.sweep(ctx); return nil }); err == nil {
		newPath, err = f.store.SetAside(ctx, rev, f.forget)
	}
	if err == nil {
		f.tidy(ctx)
	}
	return newPath, wrap("set aside", f.store.Path(), err)
}

// Prove shows that this File can keep what it will be given, before anybody
// goes to the trouble of signing in. If there is a file, its key is fetched and
// checked against the header. If there is none, its key is made and, where the
// source stores keys, read back; the first save uses that key, and if there is
// never one, the next process that proves or saves finds it.
func (f *File) Prove(ctx context.Context) error {
	err := f.prove(ctx)
	if errors.Is(err, persistence.ErrNotFound) || errors.Is(err, persistence.ErrKeyMissing) {
		// Under the lock nobody is making, rotating or deleting the key.
		err = f.hold(ctx, func() error {
			err := f.prove(ctx)
			if errors.Is(err, persistence.ErrNotFound) {
				_, err = f.firstKey(ctx)
			}
			return err
		})
	}
	return wrap("prove", f.store.Path(), err)
}

func (f *File) prove(ctx context.Context) error {
	h, err := f.header()
	if err == nil {
		_, _, err = f.unlock(ctx, h)
	}
	return err
}

// Rotate gives the file a new key, from the same source or another one, and
// encrypts its data anew; to is this File's source from then on. For a
// passphrase, that is to change it. The key that is replaced stays in its
// source, so that a copy of the file made before still opens, until the next
// Rotate or Delete. A process killed at any point leaves a file that opens.
//
// Where nothing is stored Rotate fails with ErrNotFound; where to gives the key
// that the file has already, it fails too. Files of other processes that have
// another source than to get ErrWrongKey from then on.
func (f *File) Rotate(ctx context.Context, to KeySource) error {
	err := checkSource(to)
	if err == nil {
		err = f.rotate(ctx, to)
	}
	return wrap("rotate", f.store.Path(), err)
}

func (f *File) rotate(ctx context.Context, to KeySource) error {
	from := f.keySource()
	var made masterKey
	err := f.store.Rewrite(ctx, func(ctx context.Context, data, head []byte) ([][]byte, string, error) {
		old, _, err := parseHead(head)
		if err != nil {
			return nil, "", err
		}
		// A key that was given up must not come back, though it could not be
		// deleted when it was.
		f.sweep(ctx, to)
		if old.previous != "" { // noted before, lest a kill in between leave it for good
			if err := f.note(old.previous); err != nil {
				return nil, "", err
			}
		}
		if made, err = f.makeKey(ctx, to, newID()); err != nil {
			return nil, "", err
		}
		h := &header{source: made.source, ref: made.ref, previous: old.keyName()}
		if h.keyName() == old.keyName() {
			return nil, "", fault("Give a source that has another key.", "the key is the one that the file has already")
		}
		return f.encode(h, made.key(), data)
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.source, f.known, f.made = to, made, masterKey{}
	f.mu.Unlock()
	f.hold(ctx, func() error { f.sweep(ctx, from); return nil }) // what fails here stays noted
	return nil
}

// header reads the header of the file that is there now.
func (f *File) header() (*header, error) { return readHeader(f.store.Path()) }

func readHeader(path string) (*header, error) {
	head, _, err := securefile.ReadHead(path, maxHeader)
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
		return nil, 0, fault(remedyCorrupt, "%w", err)
	case errors.Is(err, persistence.ErrUnsupportedVersion):
		return nil, 0, fault("Update this program: the file is sound and needs a newer one.", "%w", err)
	}
	return &h, size, err
}

const remedyCorrupt = "Rename the file and sign in again; what it held is lost."

// codec is what the store needs to know of the format.
type codec File

// Revision implements filestore.Codec.
func (c *codec) Revision(head []byte) (string, error) {
	h, _, err := parseHead(head)
	if err != nil {
		return "", err
	}
	return h.revision(), nil
}

// Decode implements filestore.Codec. The data takes the place of the ciphertext.
func (c *codec) Decode(ctx context.Context, file []byte) (data []byte, rev string, err error) {
	h, size, err := parseHead(file)
	if err != nil {
		return nil, "", err
	}
	if len(file)-size < tagSize { // before anybody is asked for a key
		return nil, h.revision(), fault(remedyCorrupt, "%w", corrupt("it is cut short"))
	}
	_, d, err := (*File)(c).unlock(ctx, h)
	if err != nil {
		return nil, h.revision(), err
	}
	data, err = d.open(file, size)
	if errors.Is(err, persistence.ErrCorrupt) {
		err = fault(remedyCorrupt, "%w", err)
	}
	return data, h.revision(), err
}

// Encode implements filestore.Codec. It runs under the lock.
func (c *codec) Encode(ctx context.Context, data, head []byte) ([][]byte, string, error) {
	f := (*File)(c)
	if head == nil {
		made, err := f.firstKey(ctx)
		if err != nil {
			return nil, "", err
		}
		f.mu.Lock()
		f.known = made
		f.mu.Unlock()
		return f.encode(&header{source: made.source, ref: made.ref}, made.key(), data)
	}
	old, _, err := parseHead(head)
	if err != nil {
		return nil, "", err
	}
	key, _, err := f.unlock(ctx, old)
	if err != nil {
		return nil, "", err
	}
	return f.encode(&header{source: old.source, ref: old.ref, previous: old.previous}, key, data)
}

// encode seals data under a new salt, which is all that makes the keys of this
// save its own.
func (f *File) encode(h *header, key, data []byte) ([][]byte, string, error) {
	rand.Read(h.salt[:]) // never fails
	d, err := derive(key, &h.salt, f.name)
	if err != nil {
		return nil, "", err
	}
	file, err := d.seal(h, data)
	if err != nil {
		return nil, "", err
	}
	return [][]byte{file}, h.revision(), nil
}

// unlock returns the key that h was written with, and what derives from it.
func (f *File) unlock(ctx context.Context, h *header) ([]byte, *derived, error) {
	f.mu.Lock()
	source := f.source
	f.mu.Unlock()
	if h.source != source.Source() {
		return nil, nil, fault(fmt.Sprintf("Open the file with a key from %q, or remove it and sign in again.", h.source),
			"%w: the file's key is from %q, and this program has one from %q", persistence.ErrWrongKey, h.source, source.Source())
	}
	if key, d := f.knownKey(h); d != nil {
		return key, d, nil
	}
	select {
	case f.asking <- struct{}{}:
		defer func() { <-f.asking }()
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("waiting for another call that asks for the key: %w", context.Cause(ctx))
	}
	if key, d := f.knownKey(h); d != nil { // that call had the answer
		return key, d, nil
	}
	key, err := source.Key(ctx, h.ref)
	if err != nil {
		return nil, nil, err
	}
	d, err := derive(key, &h.salt, f.name)
	if err != nil {
		return nil, nil, err
	}
	if !d.commits(h) {
		return nil, nil, fault("Try again with the key or the passphrase, and the cache's name, that the file was written with.",
			"%w: the header was written with another key or for a cache of another name", persistence.ErrWrongKey)
	}
	k := remember(h.source, h.ref, key)
	f.mu.Lock()
	f.known = k
	f.mu.Unlock()
	return k.key(), d, nil
}

// knownKey is unlock with the key in memory; without result if that is another.
func (f *File) knownKey(h *header) ([]byte, *derived) {
	f.mu.Lock()
	k := f.known
	f.mu.Unlock()
	if k.key == nil || k.source != h.source || k.ref != h.ref {
		return nil, nil
	}
	d, err := derive(k.key(), &h.salt, f.name)
	if err != nil || !d.commits(h) {
		return nil, nil
	}
	return k.key(), d
}

// firstKey makes the key for a path where no file is, under the lock.
func (f *File) firstKey(ctx context.Context) (masterKey, error) {
	f.mu.Lock()
	source, made := f.source, f.made
	f.mu.Unlock()
	if made.key != nil {
		return made, nil
	}
	id := newID()
	if _, stores := source.(KeyDeleter); stores {
		id = cmp.Or(f.stray(source.Source()), id)
	}
	made, err := f.makeKey(ctx, source, id)
	if err != nil {
		return masterKey{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, stores := source.(KeyDeleter); stores {
		f.untidy = true // and another process may delete the key before it is used: ask again
	} else {
		f.made = made
	}
	return made, nil
}

// makeKey makes the key of that id under the lock, noting it first if it will be
// stored.
func (f *File) makeKey(ctx context.Context, source KeySource, id string) (masterKey, error) {
	_, stores := source.(KeyDeleter)
	if stores {
		if err := f.note(source.Source() + "/" + id); err != nil {
			return masterKey{}, err
		}
	}
	ref, key, err := source.NewKey(ctx, id)
	if err != nil {
		return masterKey{}, notOfTheFile(err)
	}
	own, previous, ok := splitPrevious(ref)
	if !ok || previous != "" || len(key) != keySize {
		return masterKey{}, fmt.Errorf("the key source %q made a key or a reference of the wrong form", source.Source())
	}
	made := remember(source.Source(), own, key)
	if stores {
		stored, err := source.Key(ctx, own)
		if err != nil {
			return masterKey{}, notOfTheFile(err)
		}
		if subtle.ConstantTimeCompare(stored, made.key()) != 1 {
			return masterKey{}, fault("Look for another program that uses the same place for its keys.",
				"%w: the key read back from %q is not the one that was stored", persistence.ErrUnavailable, source.Source())
		}
	}
	return made, nil
}

// notOfTheFile keeps a source that fails to make a key from passing for a file
// that is of no more use.
func notOfTheFile(err error) error {
	if !errors.Is(err, persistence.ErrKeyMissing) && !errors.Is(err, persistence.ErrCorrupt) {
		return err
	}
	remedy := ""
	var e *persistence.Error
	if errors.As(err, &e) {
		remedy = e.Remedy
	}
	return fault(remedy, "%w: the key source did not keep the key that it made: %v", persistence.ErrUnavailable, err)
}

func newID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (f *File) keySource() KeySource {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.source
}

func (f *File) hold(ctx context.Context, fn func() error) error {
	return f.store.FileLock().Hold(ctx, fn)
}

// wrap makes err the error of an operation on the file: that of a source, the
// store or the lock, of which it keeps the cause and the remedy.
func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	e := &persistence.Error{Op: op, Backend: backend, Location: path, Err: err}
	if inner, ok := err.(*persistence.Error); ok {
		e.Err, e.Remedy = inner.Err, inner.Remedy
		if inner.Location != "" && inner.Location != path {
			e.Err = elsewhere{inner}
		}
		return e
	}
	var insecure *securefile.Error
	if errors.As(err, &insecure) {
		e.Remedy = insecure.Remedy()
	}
	return e
}

// elsewhere is an error of another place. It says which, though neither what was
// tried there nor the remedy, which the error around it has.
type elsewhere struct{ err *persistence.Error }

func (e elsewhere) Error() string {
	return e.err.Backend + " " + e.err.Location + ": " + e.err.Err.Error()
}
func (e elsewhere) Unwrap() error { return e.err }
