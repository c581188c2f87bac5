package securefile

import (
	"os"

	"golang.org/x/sys/unix"
)

func renameNew(from, to string) error {
	for {
		err := unix.RenamexNp(from, to, unix.RENAME_EXCL)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.ENOTSUP, unix.EINVAL: // a file system that does not know it
			return renameIfAbsent(from, to)
		default:
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
	}
}
