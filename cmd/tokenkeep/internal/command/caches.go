package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/place"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// files are the files of one cache in one folder.
type files struct {
	name, dir            string
	encrypted, plaintext bool
	locks                []string // names
	temporary            []string // names
	aside                []string // names

	lock       *persistence.FileLock  // that all writers of the cache share
	oldSources []encrypted.KeyDeleter // that may have keys which the encrypted file had before
}

func newFiles(name, dir string) *files {
	lock := layout.Cache{Dir: dir, Name: name}.Lock()
	if at, err := place.Of(dir, name); err == nil { // else the file itself is refused when it is used
		lock = at.Lock
	}
	return &files{name: name, dir: dir, lock: persistence.NewFileLock(lock)}
}

func (f *files) layout() layout.Cache  { return layout.Cache{Dir: f.dir, Name: f.name} }
func (f *files) encryptedPath() string { return f.layout().Encrypted() }
func (f *files) plaintextPath() string { return f.layout().Plaintext() }
func (f *files) stored() bool          { return f.encrypted || f.plaintext }

// openPlaintext returns the plaintext file.
func (f *files) openPlaintext() (*fallback.InsecurePlaintextFile, error) {
	return fallback.NewInsecurePlaintextFile(f.plaintextPath(), func(fallback.Warning) {}, &fallback.Options{Lock: f.lock})
}

// openEncrypted returns the encrypted file at path, the cache's own or one that
// was set aside.
func (f *files) openEncrypted(path string, keys encrypted.KeySource) (*encrypted.File, error) {
	return encrypted.New(path, keys, &encrypted.Options{Name: f.name, Lock: f.lock, OldSources: f.oldSources})
}

// scan returns the caches that have files in dir, by name. A folder that is not
// there has none.
func scan(dir string) ([]*files, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &refusal{fmt.Sprintf("the folder %s cannot be read: %v", dir, pathless(err)), "Name the right one with -dir.", nil}
	}
	found := map[string]*files{}
	of := func(name string) *files {
		if found[name] == nil {
			found[name] = newFiles(name, dir)
		}
		return found[name]
	}
	for _, e := range entries {
		n := e.Name()
		switch file := layout.Parse(n); file.Kind {
		case layout.Encrypted:
			of(file.Cache).encrypted = true
		case layout.PlaintextFile:
			of(file.Cache).plaintext = true
		case layout.Lock:
			of(file.Cache).locks = append(of(file.Cache).locks, n)
		case layout.Temporary:
			of(file.Cache).temporary = append(of(file.Cache).temporary, n)
		case layout.Aside:
			of(file.Cache).aside = append(of(file.Cache).aside, n)
		}
	}
	var all []*files
	for _, f := range found {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *files) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// folder returns the folder of the caches that the call is about.
func (c *call) folder() (string, error) {
	if c.dir != "" {
		return filepath.Abs(expandHome(c.dir, isWindows))
	}
	return tokenkeep.DefaultDir()
}

// expandHome replaces a leading ~ by the home folder on Windows, where no shell does
// that in the arguments of a program.
func expandHome(path string, windows bool) string {
	rest, ok := strings.CutPrefix(path, "~")
	if !windows || !ok || rest != "" && rest[0] != '\\' && rest[0] != '/' {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return home + rest
}

// cache returns the files of the cache that was named.
func (c *call) cache(name string) (*files, error) {
	if !layout.ValidName(name) {
		return nil, &misuse{fmt.Sprintf("%q is not the name of a cache", name), "See what there is: " + c.inFolder("tokenkeep list")}
	}
	dir, err := c.folder()
	if err != nil {
		return nil, err
	}
	all, err := scan(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.name == name {
			f.oldSources = c.storedKeys(name)
			return f, nil
		}
	}
	f := newFiles(name, dir)
	f.oldSources = c.storedKeys(name)
	return f, nil
}

// storedCache is cache, and fails if nothing is stored.
func (c *call) storedCache(name string) (*files, error) {
	f, err := c.cache(name)
	if err == nil && !f.stored() {
		err = c.nothingStored(f)
	}
	return f, err
}

func (c *call) nothingStored(f *files) error {
	return &refusal{fmt.Sprintf("nothing is stored under the name %s in %s", f.name, f.dir), "See what there is: " + c.inFolder("tokenkeep list"), persistence.ErrNotFound}
}

// storage is how a cache is kept.
type storage struct {
	Backend   string `json:"backend"` // encrypted, plaintext or none
	KeySource string `json:"keySource,omitempty"`
	Location  string `json:"location,omitempty"`
	Error     string `json:"error,omitempty"` // the class of what is wrong with the file

	err error
}

// storage returns how the cache is kept, by its files alone. A plaintext file counts
// only if there is no encrypted one.
func (f *files) storage(ctx context.Context) storage {
	switch {
	case f.encrypted:
		source, err := encrypted.StoredSource(ctx, f.encryptedPath())
		k := storage{Backend: "encrypted", KeySource: source, Location: f.encryptedPath(), err: err}
		if err != nil {
			k.Error = classOf(err)
		}
		return k
	case f.plaintext:
		return storage{Backend: "plaintext", Location: f.plaintextPath()}
	}
	return storage{Backend: "none"}
}

// storageIn is storage of a cache that is known to be in that store.
func (f *files) storageIn(ctx context.Context, store string) storage {
	again := *f
	again.encrypted, again.plaintext = store != storePlaintext, store == storePlaintext
	k := again.storage(ctx)
	if k.Backend == "encrypted" && k.err == nil {
		k.KeySource = store
	}
	return k
}

func (k storage) String() string {
	switch {
	case k.err != nil:
		return "encrypted, but " + cause(k.err)
	case k.Backend == "encrypted":
		return "encrypted, " + keyWords(k.KeySource)
	case k.Backend == "plaintext":
		return "NOT encrypted"
	}
	return "nothing stored"
}

// keyWords says where a key comes from.
func keyWords(source string) string {
	switch source {
	case storeKeyring:
		return "key in the keyring"
	case storeKernel:
		return "key in the kernel's keyring"
	case storeDPAPI:
		return "key protected by Windows (DPAPI)"
	case storePassphrase:
		return "key from a passphrase"
	}
	return fmt.Sprintf("key given by its program (%s)", source)
}

// changed is the report of a command that changes how a cache is kept.
type changed struct {
	Name string `json:"name"`
	storage
	leftKeys
	done string
}

func (r *changed) write(p *printer) {
	p.line("%s: %s; it is kept %s.", r.Name, r.done, r.storage)
	r.leftKeys.write(p, r.Name)
}

// pathless returns an error's cause without the path, for a sentence that has it.
func pathless(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
