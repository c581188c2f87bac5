package fallback

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/internal/filestore"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Warning tells the user something about the stored sign-in. Nothing in it is
// secret. Message, Reason and Remedy are sentences for a person, each with its
// full stop. Only Remedy may end in a command line instead, after a colon, so
// that the command can be pasted as it is. Message is never empty.
type Warning struct {
	Backend  string // a word, as in persistence.Description; "" unless it is about the backend in use
	Location string // a path
	Message  string // what is stored, or what happened to it, and where
	Reason   string // why; may be ""
	Remedy   string // what would help; may be ""
}

// String returns the sentences in one line.
func (w Warning) String() string {
	var sentences []string
	for _, s := range []string{w.Message, w.Reason, w.Remedy} {
		if s != "" {
			sentences = append(sentences, s)
		}
	}
	return strings.Join(sentences, " ")
}

// InsecurePlaintextFile keeps the token cache as it is, unencrypted, in a file
// that only its owner can read (mode 0600; on Windows an access list, which also
// admits the system and administrators). Anybody who gets the file can sign in as
// the user: from a backup, from a stolen disk, as root, or as another program of the
// user. On macOS the file is kept out of Time Machine's backups, and is not written to
// a volume that ignores owners.
//
// It is a [persistence.Versioned] and a [persistence.NamedLocker], safe for
// concurrent use by goroutines and processes. Saves are atomic and durable. The
// revision is the SHA-256 of the content in hexadecimal.
type InsecurePlaintextFile struct {
	store    *filestore.Store
	warning  Warning
	warn     func(Warning)
	warnOnce sync.Once
}

var (
	_ persistence.Versioned   = (*InsecurePlaintextFile)(nil)
	_ persistence.NamedLocker = (*InsecurePlaintextFile)(nil)
	_ persistence.SetAsider   = (*InsecurePlaintextFile)(nil)
	_ persistence.Describer   = (*InsecurePlaintextFile)(nil)
)

// DefaultMaxSize is the largest file that an [InsecurePlaintextFile] reads or
// writes unless [Options] say otherwise: 64 MiB, as for an encrypted file.
const DefaultMaxSize = filestore.DefaultMaxSize

// Options are the options of [NewInsecurePlaintextFile]; nil stands for their
// zero value.
type Options struct {
	// Lock that the file's writers share; nil means one on a file beside the data:
	// NAME.lock for a file named NAME.plaintext.json as tokenkeep.Open names it,
	// else the file's own name with ".lock" added. A symbolic link is followed
	// first.
	Lock *persistence.FileLock
	// MaxSize of the file in bytes; 0 means DefaultMaxSize. More is not saved and
	// not loaded, with ErrTooLarge.
	MaxSize int64
	// Reason and Remedy go into the warning: sentences, or "".
	Reason, Remedy string
}

// NewInsecurePlaintextFile returns the plaintext file at path. warn is required.
// It is called once, before this value first returns or stores any data, and
// must not use the file. If path ends in a symbolic link, the link is followed if
// nobody else can change where it leads, and refused otherwise. No file is made
// before something is saved or locked.
func NewInsecurePlaintextFile(path string, warn func(Warning), o *Options) (*InsecurePlaintextFile, error) {
	if warn == nil {
		return nil, &persistence.Error{
			Op: "open", Backend: plaintext, Location: path, Err: errors.New("nobody can be warned: warn is nil"),
			Remedy: "Pass a function that shows the warning to the user.",
		}
	}
	if o == nil {
		o = &Options{}
	}
	store, err := filestore.New(path, plaintextCodec{}, filestore.Options{Backend: plaintext, Lock: o.Lock, MaxSize: o.MaxSize, Plain: true})
	if err != nil {
		return nil, err
	}
	return &InsecurePlaintextFile{store: store, warn: warn, warning: Warning{
		Backend: plaintext, Location: store.Path(),
		Message: "Your sign-in is stored without encryption in " + store.Path() + ".",
		Reason:  o.Reason, Remedy: o.Remedy,
	}}, nil
}

const plaintext = "plaintext"

func (f *InsecurePlaintextFile) warned() { f.warnOnce.Do(func() { f.warn(f.warning) }) }

func (f *InsecurePlaintextFile) Load(ctx context.Context) ([]byte, error) {
	data, _, err := f.LoadRevision(ctx)
	return data, err
}

// Save waits for the lock, unless it is held already through this file or its
// Lock option.
func (f *InsecurePlaintextFile) Save(ctx context.Context, data []byte) error {
	f.warned()
	return f.store.Save(ctx, data)
}

// Delete removes the file. Its bytes may remain on the disk for anybody who can
// read the device.
func (f *InsecurePlaintextFile) Delete(ctx context.Context) error { return f.store.Delete(ctx) }

// Revision costs one stat while nothing changes.
func (f *InsecurePlaintextFile) Revision(ctx context.Context) (string, error) {
	return f.store.Revision(ctx)
}

func (f *InsecurePlaintextFile) LoadRevision(ctx context.Context) (data []byte, rev string, err error) {
	data, rev, err = f.store.LoadRevision(ctx)
	if err == nil {
		f.warned()
	}
	return data, rev, err
}

func (f *InsecurePlaintextFile) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	f.warned()
	return f.store.SaveIf(ctx, data, rev)
}

func (f *InsecurePlaintextFile) DeleteIf(ctx context.Context, rev string) error {
	return f.store.DeleteIf(ctx, rev)
}

func (f *InsecurePlaintextFile) Lock(ctx context.Context) (unlock func() error, err error) {
	return f.store.Lock(ctx)
}

func (f *InsecurePlaintextFile) LockName(ctx context.Context, name string) (unlock func() error, err error) {
	return f.store.LockName(ctx, name)
}

// SetAside renames the file to a name beside it, which it returns: the file's own
// with ".damaged-" and the time in UTC. It is for a file whose content is of no
// more use. The newest five such files stay, older ones are removed. If the
// revision is not rev any more it fails with ErrConflict.
func (f *InsecurePlaintextFile) SetAside(ctx context.Context, rev string) (newPath string, err error) {
	return f.store.SetAside(ctx, rev, nil)
}

func (f *InsecurePlaintextFile) Describe() persistence.Description {
	return persistence.Description{Backend: plaintext, Location: f.store.Path()}
}

// plaintextCodec stores the data as it is.
type plaintextCodec struct{}

func (plaintextCodec) Revision(file []byte) (string, error) {
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:]), nil
}

func (c plaintextCodec) Decode(_ context.Context, file []byte) ([]byte, string, error) {
	rev, err := c.Revision(file)
	return file, rev, err
}

func (c plaintextCodec) Encode(_ context.Context, data, _ []byte) ([][]byte, string, error) {
	rev, err := c.Revision(data)
	return [][]byte{data}, rev, err
}
