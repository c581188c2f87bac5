package securefile

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// OpenForeign opens another program's file to read it, without any check. It lets
// others write, rename and delete it meanwhile, which os.Open does not on Windows,
// and waits as [Read] does, also for a file that is being deleted.
func OpenForeign(ctx context.Context, path string) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var h windows.Handle
	err = retryBusy(ctx, path, refusalToOpen(name), func() error {
		if h, err = windows.CreateFile(name, windows.GENERIC_READ, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0); err != nil {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), path), nil
}

func refusalToOpen(name *uint16) func(error) refusal {
	return func(err error) refusal {
		return whileDeleted(refusalOf(err), func() refusal {
			h, err := windows.CreateFile(name, windows.FILE_READ_ATTRIBUTES, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
			if err == nil {
				windows.CloseHandle(h)
			}
			return refusalOf(err)
		})
	}
}

// IsLocked reports whether err is that of a read of what another program has locked.
func IsLocked(err error) bool { return errors.Is(err, windows.ERROR_LOCK_VIOLATION) }

// ReadDir is os.ReadDir. It waits as [Read] does while another program keeps the
// folder open and does not share it.
func ReadDir(ctx context.Context, dir string) (entries []fs.DirEntry, err error) {
	err = retryBusy(ctx, dir, refusalOf, func() error {
		entries, err = os.ReadDir(dir)
		return err
	})
	return entries, err
}
