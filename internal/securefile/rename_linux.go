package securefile

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

func renameNew(_ context.Context, from, to string) error {
	err := again(func() error { return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE) })
	switch err {
	case nil:
		return nil
	case unix.EINVAL, unix.ENOSYS: // a file system or a kernel that does not know it
		return renameIfAbsent(from, to)
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}
