package encrypted

import (
	"errors"
	"io/fs"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// StoredSource returns the word of the key source that the header of the file
// at path names, such as "keyring". It needs no key. The error is ErrNotFound
// where there is no file, ErrCorrupt for a damaged header and
// ErrUnsupportedVersion for a newer one.
func StoredSource(path string) (string, error) {
	resolved, err := securefile.Resolve(path)
	if err != nil {
		return "", wrap("open", path, err)
	}
	head, _, err := securefile.ReadHead(resolved, maxHeader)
	if errors.Is(err, fs.ErrNotExist) {
		err = persistence.ErrNotFound
	}
	if err != nil {
		return "", wrap("open", resolved, err)
	}
	h, _, err := parseHead(head)
	if err != nil {
		return "", wrap("open", resolved, err)
	}
	return h.source, nil
}
