package encrypted

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A key that a source stores belongs to one file: its id says so. And the key
// line of its file says on which machine, and for which user, the source stored
// it. Both are keyed hashes; no id of a machine, no user and no path can be read
// from them. See "Stored keys" in FORMAT.md.

// machine is what tells this machine and user from others. "" stands for what is
// not known.
type machine struct {
	id     string // of the machine
	host   string // what distinguishes machines that have the same id
	user   string // as the system names the user
	boot   string // of this boot
	userns string // of this process's user namespace
}

// machineTimeout bounds the question for the machine's id, which macOS answers
// through a command.
const machineTimeout = 5 * time.Second

// thisMachine is read once per process: neither the machine nor its boot changes
// under a running process.
var thisMachine = sync.OnceValue(func() *machine {
	ctx, cancel := context.WithTimeout(context.Background(), machineTimeout)
	defer cancel()
	id, host := readMachine(ctx)
	return &machine{id: id, host: host, user: readUser(), boot: readBootID(), userns: readUserNamespace()}
})

// keyedHash returns the start of an HMAC of the parts.
func keyedHash(key, purpose string, parts ...string) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(version + "\x00" + purpose + "\x00" + strings.Join(parts, "\x00")))
	return mac.Sum(nil)[:hashSize]
}

// kernelSource is the word of the source whose keys end with the boot.
const kernelSource = "kernel"

// origin returns the file's parameters that say where a source of that word
// stored the key of that id.
func (m *machine) origin(source, id string) (p fileParams) {
	if m.id != "" {
		where := []string{id, m.user}
		if m.host != "" {
			where = append(where, m.host)
		}
		p.origin = encode(keyedHash(m.id, "origin", where...))
	}
	if source == kernelSource && m.boot != "" {
		p.boot = encode(keyedHash(m.boot, "boot", id, m.user))
		if m.userns != "" {
			p.userns = encode(keyedHash(m.boot, "userns", id, m.userns))
		}
	}
	return p
}

// A stored key's id is random digits, then digits that only the owner, the file
// of that path and cache name on this machine, computes from them.
const (
	idRandom = 16 // hexadecimal digits
	idOwner  = 16
)

// newOwnedID returns an id for a new key that a source is to store.
func (f *File) newOwnedID() string {
	id := newID()[:idRandom]
	return id + f.ownerTag(id)
}

// owns reports whether the id says that the key was made for this file. Only
// such a key is deleted.
func (f *File) owns(id string) bool {
	return len(id) == idRandom+idOwner && id[idRandom:] == f.ownerTag(id[:idRandom])
}

func (f *File) ownerTag(random string) string {
	m := f.machine()
	tag := keyedHash(m.id, "owner", random, m.user, ownerPath(f.store.Path()), f.name)
	return hex.EncodeToString(tag)[:idOwner]
}

// ownerPath returns the path that names the owner: links are followed in the
// folder, and a file that was set aside counts as the one that it was.
func ownerPath(path string) string {
	dir, base := filepath.Split(path)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return filepath.Join(dir, withoutAside(base))
}

// withoutAside returns the name of the file that a file of that name was set aside
// from, or name itself. The format fixes it.
func withoutAside(name string) string {
	original, _, _ := strings.Cut(name, ".damaged-")
	return original
}

// newID returns 16 random bytes in hexadecimal.
func newID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
