// Package layout makes and recognises the names of a cache's files. A cache has a
// name, and in its folder
//
//	NAME.enc, NAME.plaintext.json             what is stored
//	NAME.lock                                 the lock of its writers
//	NAME.lock.turn                            the queue for that lock
//	NAME.lock.16 hex digits                   the lock of a name
//	NAME.lock.rev-16 hex digits               the revision of an item in a keyring
//	NAME.enc.damaged-TIME, with -N if need be what was set aside
//	.NAME.enc.N.tmp                           a save that is under way
//
// and the last two for NAME.plaintext.json as well. Other data files have the same
// files beside them, under their own names.
//
// It also has the names of the stores, which users know, and that of the item
// that holds a cache's key in a keyring. It does no I/O.
package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The stores: the values of tokenkeep.Config.Store and Config.Order, and the
// words of encrypted files for where their key comes from. Key stands for the
// program's own key, whose word in the file is that of its source.
const (
	Key        = "key"
	Keyring    = "keyring"
	Kernel     = "kernel"
	DPAPI      = "dpapi" // on Windows only
	Passphrase = "passphrase"
	Plaintext  = "plaintext"
	Memory     = "memory"
)

// KeyringService returns the service under which a keyring holds the key of the
// cache of that name.
func KeyringService(name string) string { return "tokenkeep/" + name }

const (
	encryptedSuffix = ".enc"
	plaintextSuffix = ".plaintext.json"
	lockSuffix      = ".lock"
	turnSuffix      = ".turn"
	revisionInfix   = ".rev-"
	asideInfix      = ".damaged-"
	asideTime       = "20060102T150405Z"
	tempSuffix      = ".tmp"
)

// Cache is a cache by its folder and its name.
type Cache struct{ Dir, Name string }

// Encrypted returns the path of the encrypted file.
func (c Cache) Encrypted() string { return c.path(encryptedSuffix) }

// Plaintext returns the path of the plaintext file.
func (c Cache) Plaintext() string { return c.path(plaintextSuffix) }

// Lock returns the path of the lock file.
func (c Cache) Lock() string { return c.path(lockSuffix) }

func (c Cache) path(suffix string) string { return filepath.Join(c.Dir, c.Name+suffix) }

// Of returns the cache whose encrypted or plaintext file is at path. ok is false
// if path is not named like one.
func Of(path string) (c Cache, ok bool) {
	dir, base := filepath.Split(path)
	f := Parse(base)
	return Cache{filepath.Clean(dir), f.Cache}, f.Kind == Encrypted || f.Kind == PlaintextFile
}

const (
	namePattern = `[a-z0-9][a-z0-9._-]{0,63}`
	hexPattern  = `[0-9a-f]{16}`
)

var (
	cacheName = regexp.MustCompile(`^` + namePattern + `$`)
	// To Windows these are devices, whatever the extension.
	deviceName = regexp.MustCompile(`^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)

	dataFile     = regexp.MustCompile(`^(` + namePattern + `)(\.enc|\.plaintext\.json)$`)
	lockFile     = regexp.MustCompile(`^(` + namePattern + `)\.lock(|\.turn|\.` + hexPattern + `)$`)
	revisionFile = regexp.MustCompile(`^(` + namePattern + `)\.lock\.rev-` + hexPattern + `$`)
	asideFile    = regexp.MustCompile(`^(` + namePattern + `)(\.enc|\.plaintext\.json)(\.damaged-.*)$`)
	tempFile     = regexp.MustCompile(`^\.((` + namePattern + `)(\.enc|\.plaintext\.json))\..*$`)
)

// ValidName reports whether name is a cache's: 1 to 64 characters of a-z, 0-9,
// '.', '_' and '-', the first a letter or a digit, and no name of a Windows
// device.
func ValidName(name string) bool {
	return cacheName.MatchString(name) && !deviceName.MatchString(name)
}

// Kind is what a file is for.
type Kind int

// The kinds of files.
const (
	Unknown Kind = iota
	Encrypted
	PlaintextFile
	Lock // of the cache, of a name, and the queue for the cache's
	Revision
	Aside
	Temporary
)

// File is what the name of a file tells.
type File struct {
	Cache string // the cache's name
	Kind  Kind
	// OfPlaintext reports whether the file is the plaintext file, was set aside
	// from it, or is a save of it.
	OfPlaintext bool
	// Queue reports whether the file is the queue for a lock. A process that waits in
	// it waits for the lock.
	Queue bool
}

// Parse tells what the file of that name in a folder of caches is. Its Kind is
// Unknown for a name that no cache's file has.
func Parse(name string) File {
	if m := tempFile.FindStringSubmatch(name); m != nil && IsTemp(name, m[1]) {
		return File{Cache: m[2], Kind: Temporary, OfPlaintext: m[3] == plaintextSuffix}
	}
	if m := asideFile.FindStringSubmatch(name); m != nil {
		if _, ok := parseAsideSuffix(m[3]); ok {
			return File{Cache: m[1], Kind: Aside, OfPlaintext: m[2] == plaintextSuffix}
		}
	}
	if m := dataFile.FindStringSubmatch(name); m != nil {
		if m[2] == plaintextSuffix {
			return File{Cache: m[1], Kind: PlaintextFile, OfPlaintext: true}
		}
		return File{Cache: m[1], Kind: Encrypted}
	}
	if m := revisionFile.FindStringSubmatch(name); m != nil {
		return File{Cache: m[1], Kind: Revision}
	}
	if m := lockFile.FindStringSubmatch(name); m != nil {
		return File{Cache: m[1], Kind: Lock, Queue: m[2] == turnSuffix}
	}
	return File{}
}

// IsData reports whether a file of that name may hold data: it is neither a file of a
// lock nor a temporary one, of whatever data file.
func IsData(name string) bool {
	return !strings.Contains(name, lockSuffix) && !strings.HasSuffix(name, tempSuffix)
}

// LockOf returns the path of the lock of the data file at path, which is resolved
// already: that of its cache for an encrypted or plaintext file of one, else the
// path with ".lock" added.
func LockOf(path string) string {
	if c, ok := Of(path); ok {
		return c.Lock()
	}
	return LockBeside(path)
}

// LockBeside returns the path with ".lock" added: the lock of a data file that is
// no cache's.
func LockBeside(path string) string { return path + lockSuffix }

// QueueOf returns the path of the queue for the lock at that path.
func QueueOf(lock string) string { return lock + turnSuffix }

// NamedLock returns the path of the lock of a name that belongs to the lock at
// that path.
func NamedLock(lock, name string) string { return lock + "." + hash(name) }

// RevisionOf returns the path of the file with the revision of an item in a
// keyring, whose writers have the lock at that path.
func RevisionOf(lock, item string) string { return lock + revisionInfix + hash(item) }

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// AsideName is what is added to the name of a file that is set aside: the time
// and, for further files of one second, a number from 2.
type AsideName struct {
	Time   string
	Number int // 0 for none
}

// NewAsideName returns the name for a file that is set aside at t.
func NewAsideName(t time.Time) AsideName { return AsideName{Time: t.UTC().Format(asideTime)} }

// Suffix returns what is added.
func (a AsideName) Suffix() string {
	if a.Number == 0 {
		return asideInfix + a.Time
	}
	return asideInfix + a.Time + "-" + strconv.Itoa(a.Number)
}

// ParseAside returns what was added to base to make name. ok is false if name is
// not that of a file set aside from base.
func ParseAside(name, base string) (a AsideName, ok bool) {
	suffix, ok := strings.CutPrefix(name, base)
	if !ok {
		return AsideName{}, false
	}
	return parseAsideSuffix(suffix)
}

func parseAsideSuffix(suffix string) (AsideName, bool) {
	stamp, number, _ := strings.Cut(strings.TrimPrefix(suffix, asideInfix), "-")
	n, _ := strconv.Atoi(number)
	a := AsideName{stamp, n}
	_, err := time.Parse(asideTime, stamp)
	return a, err == nil && a.Suffix() == suffix
}

// Temp returns the name for a save of the file base: one of those numbered from 0.
func Temp(base string, n int) string { return "." + base + "." + strconv.Itoa(n) + tempSuffix }

// IsTemp reports whether name is that of a save of the file base.
func IsTemp(name, base string) bool {
	number, ok := strings.CutPrefix(name, "."+base+".")
	if !ok {
		return false
	}
	number, ok = strings.CutSuffix(number, tempSuffix)
	n, err := strconv.Atoi(number)
	return ok && err == nil && name == Temp(base, n) && n >= 0
}
