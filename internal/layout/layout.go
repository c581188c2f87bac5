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
// It also has the names of the stores, which users know, and those of keyring items.
// It does no I/O.
package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
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

// CheckItem refuses names of keyring items that some platform would misread:
// security(1) on macOS reads its commands line by line, and may take an empty user for
// any user; D-Bus takes only UTF-8.
func CheckItem(service, user string) error {
	for _, n := range []struct{ what, name string }{{"service", service}, {"user", user}} {
		wrong := ""
		switch {
		case n.name == "":
			wrong = "is empty"
		case !utf8.ValidString(n.name):
			wrong = "is not UTF-8"
		case strings.IndexFunc(n.name, unicode.IsControl) >= 0:
			wrong = "has a control character"
		case len(n.name) > maxItemName:
			wrong = fmt.Sprintf("is longer than %d bytes", maxItemName)
		default:
			continue
		}
		return remedy.Errorf(fmt.Sprintf("Give the item a %s of 1 to %d bytes of UTF-8 without control characters.", n.what, maxItemName), "the %s %s", n.what, wrong)
	}
	return nil
}

// maxItemName is the smallest limit of all platforms: a user name in Credential
// Manager has at most 513 characters.
const maxItemName = 500

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

// ValidName reports whether name is a cache's: 1 to 64 characters of a-z, 0-9,
// '.', '_' and '-', the first a letter or a digit, and no name of a Windows
// device.
func ValidName(name string) bool { return isName(name) && !isDevice(name) }

const (
	maxName  = 64
	letters  = "abcdefghijklmnopqrstuvwxyz"
	digits   = "0123456789"
	hashSize = 16 // in hex digits
)

func isName(s string) bool {
	return s != "" && len(s) <= maxName && consists(s[:1], letters+digits) && consists(s, letters+digits+"._-")
}

// isDevice reports whether Windows takes the name for a device's, which it does
// whatever the extension.
func isDevice(name string) bool {
	name, _, _ = strings.Cut(name, ".")
	switch name {
	case "con", "prn", "aux", "nul":
		return true
	}
	port := strings.TrimPrefix(strings.TrimPrefix(name, "com"), "lpt")
	return len(name) == 4 && len(port) == 1 && consists(port, digits)
}

// consists reports whether all of s is from set.
func consists(s, set string) bool { return strings.Trim(s, set) == "" }

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
	if base, ok := baseOfTemp(name); ok {
		if f, ok := parseData(base); ok {
			f.Kind = Temporary
			return f
		}
	}
	if i := strings.LastIndex(name, asideInfix); i >= 0 {
		f, ok := parseData(name[:i])
		if _, is := parseAsideSuffix(name[i:]); ok && is {
			f.Kind = Aside
			return f
		}
	}
	if f, ok := parseData(name); ok {
		return f
	}
	if cache, ok := cutName(cutHash(name, revisionInfix), lockSuffix); ok {
		return File{Cache: cache, Kind: Revision}
	}
	if cache, ok := cutName(name, lockSuffix+turnSuffix); ok {
		return File{Cache: cache, Kind: Lock, Queue: true}
	}
	for _, lock := range [...]string{name, cutHash(name, ".")} {
		if cache, ok := cutName(lock, lockSuffix); ok {
			return File{Cache: cache, Kind: Lock}
		}
	}
	return File{}
}

// parseData parses the name of a file that holds what is stored.
func parseData(name string) (f File, ok bool) {
	if cache, ok := cutName(name, plaintextSuffix); ok {
		return File{Cache: cache, Kind: PlaintextFile, OfPlaintext: true}, true
	}
	cache, ok := cutName(name, encryptedSuffix)
	return File{Cache: cache, Kind: Encrypted}, ok
}

// cutName returns the name of a cache that stands before suffix.
func cutName(s, suffix string) (name string, ok bool) {
	name, ok = strings.CutSuffix(s, suffix)
	return name, ok && isName(name)
}

// cutHash returns s without the hash at its end and infix before that, or "".
func cutHash(s, infix string) string {
	i := max(0, len(s)-hashSize)
	if !consists(s[i:], digits+"abcdef") {
		return ""
	}
	rest, ok := strings.CutSuffix(s[:i], infix)
	if !ok {
		return ""
	}
	return rest
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
	return hex.EncodeToString(sum[:hashSize/2])
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
	of, ok := baseOfTemp(name)
	return ok && of == base
}

// baseOfTemp returns the file that name is that of a save of.
func baseOfTemp(name string) (base string, ok bool) {
	numbered, ok := strings.CutSuffix(name, tempSuffix)
	i := strings.LastIndexByte(numbered, '.')
	if !ok || i < 1 {
		return "", false
	}
	base = numbered[1:i]
	n, err := strconv.Atoi(numbered[i+1:])
	return base, err == nil && n >= 0 && name == Temp(base, n)
}
