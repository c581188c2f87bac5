package securefile

import (
	"context"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// OpenForeign opens another program's file to read it, without any check. It lets
// others write, rename and delete it meanwhile, which os.Open does not on Windows,
// and waits as [Read] does.
func OpenForeign(ctx context.Context, path string) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var h windows.Handle
	err = retryBusy(ctx, path, refusalOf, func() error {
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

// ReadDir is os.ReadDir. It waits as [Read] does while another program keeps the
// folder open and does not share it.
func ReadDir(ctx context.Context, dir string) (entries []fs.DirEntry, err error) {
	err = retryBusy(ctx, dir, refusalOf, func() error {
		entries, err = os.ReadDir(dir)
		return err
	})
	return entries, err
}
