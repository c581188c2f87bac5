package securefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/windows"
)

// Stamp tells one state of a file from another, as far as the file system
// tells. Stamps are compared with ==. No file has the zero Stamp.
type Stamp struct {
	Dev, Ino     uint64 // the volume's serial number, the file's index
	Size         int64
	Mtime, Ctime int64 // last write, creation: nanoseconds since 1970
}

func stampOf(i *windows.ByHandleFileInformation) Stamp {
	return Stamp{
		Dev: uint64(i.VolumeSerialNumber), Ino: uint64(i.FileIndexHigh)<<32 | uint64(i.FileIndexLow),
		Size:  int64(i.FileSizeHigh)<<32 | int64(i.FileSizeLow),
		Mtime: i.LastWriteTime.Nanoseconds(), Ctime: i.CreationTime.Nanoseconds(),
	}
}

// Stat returns the stamp of what is at path, without any check. Where nothing
// is, the error is an fs.ErrNotExist.
func Stat(path string) (Stamp, error) {
	defer reading()()
	h, info, err := openHandle(path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return Stamp{}, err
	}
	windows.CloseHandle(h)
	return stampOf(&info), nil
}

// openHandle opens what is at path, not what a link there leads to, and lets
// others read, write, rename and delete it meanwhile.
func openHandle(path string, rights uint32) (windows.Handle, windows.ByHandleFileInformation, error) {
	var info windows.ByHandleFileInformation
	fail := func(op string, err error) (windows.Handle, windows.ByHandleFileInformation, error) {
		return 0, info, &fs.PathError{Op: op, Path: path, Err: err}
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return fail("open", err)
	}
	var h windows.Handle
	err = retry(func() error {
		h, err = windows.CreateFile(name, rights,
			windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING,
			windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT|windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
		return err
	})
	if err != nil {
		return fail("open", err)
	}
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		windows.CloseHandle(h)
		return fail("stat", err)
	}
	return h, info, nil
}

// retry repeats what fails because another program (a virus scanner, an
// indexer, a reader) has the file open just now: for about a second.
func retry(do func() error) error {
	for n := range 250 {
		if err := do(); !busy(err) {
			return err
		}
		time.Sleep(rand.N(time.Millisecond * time.Duration(min(n+1, 8)))) // random, so that two do not keep in step
	}
	return do()
}

func busy(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_LOCK_VIOLATION)
}

func open(path string, flag int, _ uint32) (*os.File, Stamp, error) {
	rights := uint32(windows.GENERIC_READ)
	if flag&os.O_RDWR != 0 {
		rights |= windows.GENERIC_WRITE
	}
	h, info, err := openHandle(path, rights)
	if err != nil {
		return nil, Stamp{}, err
	}
	if err := check(path, h, &info); err != nil {
		windows.CloseHandle(h)
		return nil, Stamp{}, err
	}
	return os.NewFile(uintptr(h), path), stampOf(&info), nil
}

func check(path string, h windows.Handle, info *windows.ByHandleFileInformation) error {
	insecure := func(remedy, reason string) error {
		return &Error{Path: path, Reason: reason, Advice: remedy, Err: fs.ErrPermission}
	}
	if kind, err := windows.GetFileType(h); err != nil || kind != windows.FILE_TYPE_DISK {
		return insecure("Move it away.", "is a device or a pipe, not a regular file")
	}
	switch attr := info.FileAttributes; {
	case attr&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0:
		return insecure("Put the file itself there.", "is a link or another reparse point, not a regular file")
	case attr&windows.FILE_ATTRIBUTE_DIRECTORY != 0:
		return insecure("Move it away.", "is a folder, not a regular file")
	case info.NumberOfLinks > 1:
		return insecure("Remove its other names, or replace it with a copy.", fmt.Sprintf("has %d names (hard links)", info.NumberOfLinks))
	}
	return nil
}

func openToRead(path string, forbidden uint32) (io.ReadCloser, Stamp, error) {
	f, st, err := open(path, os.O_RDONLY, forbidden)
	if err != nil {
		return nil, Stamp{}, err
	}
	return f, st, nil
}

// checkTarget checks what is at path and is to be replaced or removed.
func checkTarget(path string) error {
	h, info, err := openHandle(path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(h)
	return check(path, h, &info)
}

// checkDir checks that dir is a folder; who may write it is for access lists to say.
func checkDir(dir string) error {
	if dir == "" {
		dir = "."
	}
	fi, err := os.Stat(dir)
	if err == nil && !fi.IsDir() {
		err = &Error{Path: dir, Reason: "is not a folder", Err: fs.ErrInvalid}
	}
	return err
}

func useDir(dir string) error { return checkDir(dir) }

func readLink(path string) (string, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if fi.Mode()&(fs.ModeSymlink|fs.ModeIrregular) != 0 {
		return "", &Error{Path: path, Reason: "is a link or another reparse point, which is not followed", Advice: "Name the file itself.", Err: fs.ErrPermission}
	}
	return "", nil
}

// dirID returns the ID of a folder, links followed.
func dirID(dir string) (ID, error) {
	if dir == "" {
		dir = "."
	}
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return ID{}, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	h, err := windows.CreateFile(name, windows.FILE_READ_ATTRIBUTES,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return ID{}, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer windows.CloseHandle(h)
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	st := stampOf(&info)
	return ID{st.Dev, st.Ino}, nil
}

// setDirMode does nothing: the folder inherits its access list.
func setDirMode(string) error { return nil }

// MakeEmpty makes an empty file at path, unless one is there, and checks it as
// [Open] does.
func MakeEmpty(path string) error {
	for {
		err := checkTarget(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			return f.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

func openDir(dir string) (*os.File, error) {
	if dir == "" {
		dir = "."
	}
	return os.Open(dir)
}

// syncDir does nothing: a folder cannot be flushed. See rename.
func syncDir(*os.File) error { return nil }

type temp struct {
	path string
	f    *os.File
	at   Stamp
}

func createTempAt(path string) (*temp, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) || deleting(path, err) {
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &info); err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return &temp{path, f, stampOf(&info)}, nil
}

// deleting reports whether err is that of a name whose file has been deleted and
// is still open somewhere.
func deleting(path string, err error) bool {
	if !errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return false
	}
	_, statErr := os.Lstat(path)
	return !errors.Is(statErr, fs.ErrNotExist)
}

func (t *temp) release() {}

// inPlace reports whether the temporary file still has its temporary name.
func (t *temp) inPlace() bool {
	st, err := Stat(t.path)
	return err == nil && st.Dev == t.at.Dev && st.Ino == t.at.Ino
}

// stamp returns the file's stamp under its new name.
func (t *temp) stamp(path string) (Stamp, error) {
	st, err := Stat(path)
	if err == nil && (st.Dev != t.at.Dev || st.Ino != t.at.Ino) {
		err = errors.New("replaced meanwhile")
	}
	return st, err
}

// leftoverAge: a file that its writer has open cannot be removed, but between
// its close and its rename it can.
const leftoverAge = time.Minute

// removeIfDead removes the temporary file if it is closed and old.
func removeIfDead(path string) {
	h, info, err := openHandle(path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return
	}
	err = check(path, h, &info)
	windows.CloseHandle(h)
	if err != nil || time.Since(time.Unix(0, info.LastWriteTime.Nanoseconds())) <= leftoverAge {
		return
	}
	// By its handle, as another file may have the name by now.
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return
	}
	h, err = windows.CreateFile(name, windows.DELETE|windows.FILE_READ_ATTRIBUTES,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING,
		windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return // its writer has it open
	}
	defer windows.CloseHandle(h)
	var now windows.ByHandleFileInformation
	if windows.GetFileInformationByHandle(h, &now) != nil || stampOf(&now) != stampOf(&info) {
		return
	}
	remove := byte(1) // FILE_DISPOSITION_INFO
	_ = windows.SetFileInformationByHandle(h, windows.FileDispositionInfo, &remove, 1)
}

// access keeps the readers of this process from starving its renames, which
// fail while somebody has the file open. Other processes' readers are left to
// retry.
var access sync.RWMutex

func reading() (done func()) {
	access.RLock()
	return access.RUnlock
}

// rename replaces to, written through to the disk. That fails while a reader has
// to open; then it is tried with the semantics of POSIX, which NTFS knows, and
// which nothing writes through.
func rename(from, to string) error {
	return retry(func() error {
		access.Lock()
		defer access.Unlock()
		err := move(from, to, windows.MOVEFILE_REPLACE_EXISTING|windows.MOVEFILE_WRITE_THROUGH)
		if !busy(err) {
			return err
		}
		dir, rootErr := os.OpenRoot(filepath.Dir(to))
		if rootErr != nil {
			return err
		}
		defer dir.Close()
		if dir.Rename(filepath.Base(from), filepath.Base(to)) == nil {
			return nil
		}
		return err
	})
}

func renameNew(from, to string) error {
	return retry(func() error { return move(from, to, windows.MOVEFILE_WRITE_THROUGH) })
}

func move(from, to string, flags uint32) error {
	f, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	t, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	if err := windows.MoveFileEx(f, t, flags); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func remove(path string) error { return retry(func() error { return os.Remove(path) }) }

// Explain returns err: advice is known on Unix only.
func Explain(_ string, err error) error { return err }

// mayMakeIn is about sudo.
func mayMakeIn(_, _ string) error { return nil }
