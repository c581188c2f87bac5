//go:build unix

package securefile

import (
	"errors"
	"io/fs"
	"os"
)

// renameIfAbsent is the best that there is where the system cannot refuse to
// overwrite.
func renameIfAbsent(from, to string) error {
	_, err := os.Lstat(to)
	if err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(from, to)
}
