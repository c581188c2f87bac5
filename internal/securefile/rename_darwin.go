package securefile

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

func renameNew(_ context.Context, from, to string) error {
	err := again(func() error { return unix.RenamexNp(from, to, unix.RENAME_EXCL) })
	switch err {
	case nil:
		return nil
	case unix.ENOTSUP, unix.EINVAL: // a file system that does not know it
		return renameIfAbsent(from, to)
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}
