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

// Warning tells the user of something about their stored sign-in that they
// should know. Each field is a sentence for a person, or empty; none is secret.
type Warning struct {
	Backend  string // as in persistence.Description
	Location string // as in persistence.Description
	Message  string // what is stored, and where
	Reason   string // why nothing safer was to be had
	Remedy   string // what would mend it
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

// InsecurePlaintextFile keeps the token cache as it is, not encrypted, in a file
// that only its owner may read (mode 0600; on Windows, whoever may read the
// folder). Whoever gets at the file, in a backup, on a stolen disk, as root or
// as another program of the user, can sign in as the user.
//
// It is a [persistence.Versioned] and a [persistence.NamedLocker]. Saves are
// atomic and durable. The revision is the SHA-256 of the content.
type InsecurePlaintextFile struct {
	store    *filestore.Store
	warning  Warning
	warn     func(Warning)
	warnOnce sync.Once
}

// Options are the options of [NewInsecurePlaintextFile]. The zero value is good.
type Options struct {
	// Lock that the writers share; nil means one on a file beside the data:
	// NAME.lock for a file named NAME.plaintext.json as tokenkeep.Open names it,
	// else the file's own name with ".lock" added. A symbolic link is followed
	// first.
	Lock *persistence.FileLock
	// MaxSize is the most bytes that are saved or loaded; 0 means 256 MiB.
	MaxSize int64
	// Reason and Remedy go into the warning.
	Reason, Remedy string
}

// NewInsecurePlaintextFile returns the plaintext file at path. warn is required:
// it is called once, before this value first returns or stores any data, and
// must not use the file. The options may be nil. A path that ends in a symbolic link is followed if nobody
// else can change where it leads, and refused otherwise. No file is made before
// something is saved or locked.
func NewInsecurePlaintextFile(path string, warn func(Warning), o *Options) (*InsecurePlaintextFile, error) {
	if warn == nil {
		return nil, &persistence.Error{
			Op: "open", Backend: plaintext, Location: path, Err: errors.New("nobody to warn: warn is nil"),
			Remedy: "Pass a function that shows the warning to the user.",
		}
	}
	if o == nil {
		o = &Options{}
	}
	store, err := filestore.New(path, plaintextCodec{}, filestore.Options{Backend: plaintext, Lock: o.Lock, MaxSize: o.MaxSize})
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

// Load implements [persistence.Persistence].
func (f *InsecurePlaintextFile) Load(ctx context.Context) ([]byte, error) {
	data, _, err := f.LoadRevision(ctx)
	return data, err
}

// Save implements [persistence.Persistence]. It waits for the lock, unless that
// is held through this file or its Lock option.
func (f *InsecurePlaintextFile) Save(ctx context.Context, data []byte) error {
	f.warned()
	return f.store.Save(ctx, data)
}

// Delete implements [persistence.Persistence]. The bytes may still be on the
// disk, and be found there by who can read the device.
func (f *InsecurePlaintextFile) Delete(ctx context.Context) error { return f.store.Delete(ctx) }

// Revision implements [persistence.Versioned]. While nothing changes it costs
// one stat.
func (f *InsecurePlaintextFile) Revision(ctx context.Context) (string, error) {
	return f.store.Revision(ctx)
}

// LoadRevision implements [persistence.Versioned].
func (f *InsecurePlaintextFile) LoadRevision(ctx context.Context) (data []byte, rev string, err error) {
	data, rev, err = f.store.LoadRevision(ctx)
	if err == nil {
		f.warned()
	}
	return data, rev, err
}

// SaveIf implements [persistence.Versioned].
func (f *InsecurePlaintextFile) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	f.warned()
	return f.store.SaveIf(ctx, data, rev)
}

// DeleteIf implements [persistence.Versioned].
func (f *InsecurePlaintextFile) DeleteIf(ctx context.Context, rev string) error {
	return f.store.DeleteIf(ctx, rev)
}

// Lock implements [persistence.Locker].
func (f *InsecurePlaintextFile) Lock(ctx context.Context) (unlock func() error, err error) {
	return f.store.Lock(ctx)
}

// LockName implements [persistence.NamedLocker].
func (f *InsecurePlaintextFile) LockName(ctx context.Context, name string) (unlock func() error, err error) {
	return f.store.LockName(ctx, name)
}

// SetAside renames the file, if its revision still is rev, to a name beside it
// that it returns: for a file whose content is of no more use. The name is the
// file's own with ".damaged-" and the time in UTC. The newest five stay, and
// older ones are removed.
func (f *InsecurePlaintextFile) SetAside(ctx context.Context, rev string) (newPath string, err error) {
	return f.store.SetAside(ctx, rev, nil)
}

// Describe implements [persistence.Describer].
func (f *InsecurePlaintextFile) Describe() persistence.Description {
	return persistence.Description{Backend: plaintext, Location: f.store.Path()}
}

// plaintextCodec is the format that is none.
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
