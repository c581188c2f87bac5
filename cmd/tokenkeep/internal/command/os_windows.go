package command

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

const (
	isWindows = true
	isDarwin  = false
)

// enableColour makes the console understand colours.
func enableColour(stream any) bool {
	f, ok := stream.(*os.File)
	var mode uint32
	return ok && windows.GetConsoleMode(windows.Handle(f.Fd()), &mode) == nil &&
		windows.SetConsoleMode(windows.Handle(f.Fd()), mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}

// foreign is "": access lists, and not owners, say here who can open a file.
func foreign(fs.FileInfo) string { return "" }

func modeWords(fs.FileInfo) string { return "" }

// writable returns an error if Windows denies to make files in dir or, if dir does not
// exist, in the first folder above it that does. It makes nothing to find that out.
func writable(dir string) error {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return err
	}
	const addFile, addFolder = windows.FILE_WRITE_DATA, windows.FILE_APPEND_DATA
	h, err := windows.CreateFile(name, addFile|addFolder, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	switch {
	case err == nil:
		return windows.CloseHandle(h)
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir:
		return writable(filepath.Dir(dir))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, windows.ERROR_ACCESS_DENIED), errors.Is(err, windows.ERROR_WRITE_PROTECT):
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return nil // only writing would tell
}

// lockHeld reports whether somebody has the file locked. To find out, it locks it
// for a moment.
func lockHeld(ctx context.Context, path string) (bool, error) {
	f, err := securefile.Open(ctx, path, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var at windows.Overlapped
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, &at)
}

// abandoned reports whether nobody writes the temporary file any more; that of a
// save that is under way is younger than a minute.
func abandoned(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && time.Since(fi.ModTime()) > time.Minute
}

func processAlive(pid int) bool {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return errors.Is(err, windows.ERROR_ACCESS_DENIED)
	}
	defer windows.CloseHandle(h)
	var code uint32
	const stillActive = 259
	return windows.GetExitCodeProcess(h, &code) != nil || code == stillActive
}

func commandExists(string) bool { return false }
