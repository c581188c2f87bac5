// Package place finds the files of a cache, of which some may be symbolic links.
//
// One cache has one lock, whatever path leads to it. So the lock lies beside the
// encrypted file that the path leads to, not beside the link: two programs that
// open one file, by a link and without it, share its lock.
package place

import (
	"errors"
	"io/fs"
	"os"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// Place is where the files of a cache are.
type Place struct {
	Encrypted, Plaintext, Lock string // paths, links followed
	// Apart reports whether the plaintext file is a link to a place with another
	// lock. It cannot be used together with the encrypted file then.
	Apart bool
}

// Of returns the place of the cache of that name in dir. It follows NAME.enc and
// NAME.plaintext.json, which need not exist, as [securefile.Resolve] does, and
// fails as that does for NAME.enc. If only the plaintext file is a link, and
// there is no encrypted file, the cache is where that link leads.
func Of(dir, name string) (Place, error) {
	here := layout.Cache{Dir: dir, Name: name}
	encrypted, err := securefile.Resolve(here.Encrypted())
	if err != nil {
		return Place{}, err
	}
	p := Place{Encrypted: encrypted, Plaintext: here.Plaintext(), Lock: layout.LockOf(encrypted)}
	plaintext, err := securefile.Resolve(here.Plaintext())
	if err != nil || plaintext == here.Plaintext() || layout.LockOf(plaintext) == p.Lock {
		// A link that cannot be trusted stays as it is; the plaintext file refuses it.
		if err == nil {
			p.Plaintext = plaintext
		}
		return p, nil
	}
	p.Plaintext = plaintext
	if c, ok := layout.Of(plaintext); ok && encrypted == here.Encrypted() && !Exists(encrypted) {
		p.Encrypted, p.Lock = c.Encrypted(), c.Lock()
		return p, nil
	}
	p.Apart = true
	return p, nil
}

// Exists reports whether there is anything at path, as far as can be known.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
