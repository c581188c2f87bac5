package neighbour

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// held reports whether a program has the start of the file locked.
func held(f *os.File) bool {
	h := windows.Handle(f.Fd())
	err := windows.LockFileEx(h, windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if err == nil {
		_ = windows.UnlockFileEx(h, 0, 1, 0, &windows.Overlapped{})
	}
	return errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING)
}
