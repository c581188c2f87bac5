package securefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Stamp tells one state of a file from another, as far as the file system
// tells. Stamps are compared with ==. No file has the zero Stamp.
type Stamp struct {
	Dev, Ino, InoHigh uint64 // the volume's serial number, the file's 128-bit id
	Size              int64
	// Last write and creation, in nanoseconds since 1970. The file that replaces
	// another one of that name within seconds may inherit its time of creation.
	Mtime, Ctime int64
}

func (s Stamp) id() ID { return ID{s.Dev, s.Ino, s.InoHigh} }

// statHandle returns the stamp of an open file, and its attributes. On ReFS only the
// 128-bit id is unique. Where there is none (FAT, some networks, Wine), the index
// stands for it.
func statHandle(h windows.Handle) (Stamp, *windows.ByHandleFileInformation, error) {
	var i windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &i); err != nil {
		return Stamp{}, nil, err
	}
	st := Stamp{
		Dev: uint64(i.VolumeSerialNumber), Ino: uint64(i.FileIndexHigh)<<32 | uint64(i.FileIndexLow),
		Size:  int64(i.FileSizeHigh)<<32 | int64(i.FileSizeLow),
		Mtime: i.LastWriteTime.Nanoseconds(), Ctime: i.CreationTime.Nanoseconds(),
	}
	var id struct { // FILE_ID_INFO
		volume uint64
		low    uint64
		high   uint64
	}
	if windows.GetFileInformationByHandleEx(h, windows.FileIdInfo, (*byte)(unsafe.Pointer(&id)), uint32(unsafe.Sizeof(id))) == nil {
		st.Dev, st.Ino, st.InoHigh = id.volume, id.low, id.high
	}
	return st, &i, nil
}

// Stat returns the stamp of what is at path, without any check. Where nothing
// is, the error is an fs.ErrNotExist.
func Stat(path string) (Stamp, error) {
	f, err := openHandle(context.Background(), path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return Stamp{}, err
	}
	windows.CloseHandle(f.h)
	return f.stamp, nil
}

// handle is an open file.
type handle struct {
	h     windows.Handle
	stamp Stamp
	info  *windows.ByHandleFileInformation
	link  bool // it is another name for something: a symbolic link or a mount point
}

const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

// openHandle opens what is at path, not what a link there leads to, and lets
// others read, write, rename and delete it meanwhile. What only asks for attributes
// is never kept waiting by those who have the file open.
func openHandle(ctx context.Context, path string, rights uint32) (handle, error) {
	fail := func(op string, err error) (handle, error) {
		return handle{}, &fs.PathError{Op: op, Path: path, Err: err}
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return fail("open", err)
	}
	open := func(flags uint32) (h windows.Handle, err error) {
		err = retryBusy(ctx, path, refusalOf, func() error {
			h, err = windows.CreateFile(name, rights, shareAll, nil, windows.OPEN_EXISTING, flags, 0)
			return err
		})
		return h, err
	}
	const flags = windows.FILE_ATTRIBUTE_NORMAL | windows.FILE_FLAG_BACKUP_SEMANTICS
	h, err := open(flags | windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return fail("open", err)
	}
	f := handle{h: h}
	if f.stamp, f.info, err = statHandle(h); err != nil {
		windows.CloseHandle(h)
		return fail("stat", err)
	}
	if f.info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT == 0 {
		return f, nil
	}
	if f.link = isLink(h); f.link || rights&windows.GENERIC_READ == 0 {
		return f, nil
	}
	// The content is what the system's filter makes of it.
	whole, err := open(flags)
	if err != nil {
		windows.CloseHandle(h)
		return fail("open", err)
	}
	windows.CloseHandle(h)
	st, info, err := statHandle(whole)
	if err == nil && st.id() != f.stamp.id() {
		err = errors.New("it leads to another file")
	}
	if err != nil {
		windows.CloseHandle(whole)
		return fail("open", err)
	}
	return handle{h: whole, stamp: st, info: info}, nil
}

// isLink reports whether the open reparse point is a link. One that says nothing
// counts as one.
func isLink(h windows.Handle) bool {
	var i struct{ attributes, tag uint32 } // FILE_ATTRIBUTE_TAG_INFO
	err := windows.GetFileInformationByHandleEx(h, windows.FileAttributeTagInfo, (*byte)(unsafe.Pointer(&i)), uint32(unsafe.Sizeof(i)))
	return err != nil || isLinkTag(i.tag)
}

// refusalOf judges the error of an attempt to open a file.
func refusalOf(err error) refusal {
	switch {
	case errors.Is(err, windows.ERROR_SHARING_VIOLATION), errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_USER_MAPPED_FILE):
		return shared
	case errors.Is(err, windows.ERROR_ACCESS_DENIED), errors.Is(err, windows.ERROR_DELETE_PENDING):
		return denied
	}
	return final
}

func open(ctx context.Context, path string, flag int, _ uint32) (*os.File, Stamp, error) {
	rights := uint32(windows.GENERIC_READ)
	if flag&os.O_RDWR != 0 {
		rights |= windows.GENERIC_WRITE
	}
	f, err := openHandle(ctx, path, rights)
	if err != nil {
		return nil, Stamp{}, err
	}
	if err := f.check(path); err != nil {
		windows.CloseHandle(f.h)
		return nil, Stamp{}, err
	}
	return os.NewFile(uintptr(f.h), path), f.stamp, nil
}

func (f *handle) check(path string) error {
	insecure := func(remedy, reason string) error {
		return &Error{Path: path, Reason: reason, Advice: remedy, Err: fs.ErrPermission}
	}
	if kind, err := windows.GetFileType(f.h); err != nil || kind != windows.FILE_TYPE_DISK {
		return insecure("Move it away.", "is a device or a pipe, not a regular file")
	}
	switch {
	case f.link:
		return insecure("Put the file itself there.", "is a link, not a regular file")
	case f.info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0:
		return insecure("Move it away.", "is a folder, not a regular file")
	case f.info.NumberOfLinks > 1:
		return insecure("Remove its other names, or replace it with a copy.", fmt.Sprintf("has %d names (hard links)", f.info.NumberOfLinks))
	}
	return nil
}

// access keeps the readers of this process from starving its renames where those
// fail while somebody has the file open. Other processes' readers are left to
// retry. Nobody waits for another program, or for the disk, while holding it.
var access sync.RWMutex

// reader is a file that is open for reading, with access.
type reader struct{ *os.File }

func (r reader) Close() error {
	defer access.RUnlock()
	return r.File.Close()
}

func openToRead(ctx context.Context, path string, forbidden uint32) (io.ReadCloser, Stamp, error) {
	var f *os.File
	var st Stamp
	err := retryBusy(ctx, path, refusalOf, func() (err error) {
		access.RLock()
		if f, st, err = open(once, path, os.O_RDONLY, forbidden); err != nil {
			access.RUnlock()
		}
		return err
	})
	if err != nil {
		return nil, Stamp{}, err
	}
	return reader{f}, st, nil
}

// checkTarget checks what is at path and is to be replaced or removed.
func checkTarget(path string) error {
	f, err := openHandle(context.Background(), path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(f.h)
	return f.check(path)
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
	f, err := openHandle(context.Background(), path, windows.FILE_READ_ATTRIBUTES)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	windows.CloseHandle(f.h)
	if f.link {
		return "", &Error{Path: path, Reason: "is a link, which is not followed", Advice: "Name the file itself.", Err: fs.ErrPermission}
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
	h, err := windows.CreateFile(name, windows.FILE_READ_ATTRIBUTES, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return ID{}, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer windows.CloseHandle(h)
	st, _, err := statHandle(h)
	if err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	return st.id(), nil
}

// setDirMode does nothing: mkdir has given the folder its access list.
func setDirMode(string) error { return nil }

// MakeEmpty makes an empty file at path, unless one is there, and checks it as
// [Open] does.
func MakeEmpty(path string) error {
	for {
		err := checkTarget(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := createFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE, shareAll)
		if err == nil {
			return f.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// createFile makes a new file that only the user, the system and administrators
// can open.
func createFile(path string, rights, share uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	list, err := private(ownSID(), "")
	if err != nil {
		return nil, &fs.PathError{Op: "access list", Path: path, Err: err}
	}
	h, err := windows.CreateFile(name, rights, share, list, windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

func mkdir(dir string) error {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	list, err := private(ownSID(), "OICI")
	if err == nil {
		err = windows.CreateDirectory(name, list)
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// private returns the access list of what is made here for a user, by security
// identifier; inherit are the flags with which a folder hands it down. For the user "" it
// is nil, which stands for what the folder hands down: in an AppContainer, and for a
// token with restrictions, more than the user has to be admitted.
func private(user, inherit string) (*windows.SecurityAttributes, error) {
	if user == "" {
		return nil, nil
	}
	list := "D:P"
	for _, who := range []string{user, "SY", "BA"} { // SYSTEM and the administrators
		list += fmt.Sprintf("(A;%s;FA;;;%s)", inherit, who)
	}
	sd, err := windows.SecurityDescriptorFromString(list)
	if err != nil {
		return nil, err
	}
	a := &windows.SecurityAttributes{SecurityDescriptor: sd}
	a.Length = uint32(unsafe.Sizeof(*a))
	return a, nil
}

// ownSID returns the security identifier of this process's user, or "" where that
// alone would not admit this process.
var ownSID = sync.OnceValue(func() string {
	token := windows.GetCurrentProcessToken()
	var container, n uint32
	if windows.GetTokenInformation(token, tokenIsAppContainer, (*byte)(unsafe.Pointer(&container)), 4, &n) == nil && container != 0 {
		return ""
	}
	var restricting [64]uint32 // TOKEN_GROUPS: how many there are, and the groups
	err := windows.GetTokenInformation(token, windows.TokenRestrictedSids, (*byte)(unsafe.Pointer(&restricting)), uint32(unsafe.Sizeof(restricting)), &n)
	if errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) || restricting[0] != 0 {
		return ""
	}
	user, err := token.GetTokenUser()
	if err != nil { // the system always tells a process its own user
		return ""
	}
	return user.User.Sid.String()
})

// tokenIsAppContainer is TokenIsAppContainer of TOKEN_INFORMATION_CLASS.
const tokenIsAppContainer = 29

// openDir opens nothing: a folder cannot be flushed, and another program may keep it
// open. Closing nil is harmless.
func openDir(string) (*os.File, error) { return nil, nil }

// syncDir does nothing, for the same reason. See temp.sync.
func syncDir(*os.File) error { return nil }

// temp is a temporary file. It stays open until it has its name, and nobody else can
// write it meanwhile: so a living writer's is known, and no virus scanner, which
// looks at what is closed, comes in between.
type temp struct {
	path string
	f    *os.File // nil once it is closed
	at   Stamp
}

func createTempAt(path string) (*temp, error) {
	f, err := createFile(path, windows.GENERIC_WRITE|windows.DELETE|windows.FILE_READ_ATTRIBUTES, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE)
	if errors.Is(err, fs.ErrExist) || deleting(path, err) {
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	t := &temp{path: path, f: f}
	if t.at, _, err = statHandle(t.handle()); err != nil {
		t.discard()
		t.release()
		return nil, err
	}
	return t, nil
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

func (t *temp) handle() windows.Handle { return windows.Handle(t.f.Fd()) }

// written does nothing: the file is closed when it has its name.
func (t *temp) written() error { return nil }

// discard removes the file while it still has its temporary name.
func (t *temp) discard() {
	if t.f == nil || dispose(t.handle()) != nil {
		t.release()
		os.Remove(t.path)
	}
}

// release closes what is open of the file.
func (t *temp) release() {
	if t.f != nil {
		t.f.Close()
		t.f = nil
	}
}

// inPlace reports whether the temporary file still has its temporary name.
func (t *temp) inPlace() bool {
	st, err := Stat(t.path)
	return err == nil && st.id() == t.at.id()
}

// stamp returns the file's stamp under its new name. The file is closed first: only
// then are its times what they stay.
func (t *temp) stamp(path string) (Stamp, error) {
	t.release()
	st, err := Stat(path)
	if err == nil && st.id() != t.at.id() {
		err = errors.New("replaced meanwhile")
	}
	return st, err
}

// rename gives the file its name.
func (t *temp) rename(ctx context.Context, path string) error {
	full, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	alone := func(do func() error) func() error {
		return func() error {
			access.Lock()
			defer access.Unlock()
			makeWritable(full)
			return do()
		}
	}
	byHandle := func(class, flags uint32) func() error {
		return func() error {
			if t.f == nil {
				return windows.ERROR_NOT_SUPPORTED
			}
			return renameHandle(t.handle(), full, class, flags)
		}
	}
	const posix = windows.FILE_RENAME_REPLACE_IF_EXISTS | windows.FILE_RENAME_POSIX_SEMANTICS
	err = retryBusy(ctx, path, func(err error) refusal { return refusalToReplace(full, err) }, func() error {
		return firstKnown(isUnknown,
			byHandle(windows.FileRenameInfoEx, posix|windows.FILE_RENAME_IGNORE_READONLY_ATTRIBUTE),
			byHandle(windows.FileRenameInfoEx, posix),
			// FAT, some networks and Windows before version 1709 of Windows 10.
			alone(byHandle(windows.FileRenameInfo, 1)),
			// Wine.
			alone(func() error {
				t.release()
				return move(t.path, full, windows.MOVEFILE_REPLACE_EXISTING)
			}))
	})
	var insecure *Error
	if err != nil && !errors.As(err, &insecure) {
		return &os.LinkError{Op: "rename", Old: t.path, New: path, Err: err}
	}
	return err
}

// sync flushes the file under its new name: what the file system has noted of the
// name comes to the disk with it.
func (t *temp) sync(*os.File) (step string, err error) {
	const again = "fsync again"
	if t.f != nil {
		return again, t.f.Sync()
	}
	return again, nil
}

// refusalToReplace judges the error of an attempt to replace what is at path.
// Windows also denies that where somebody has the file open.
func refusalToReplace(path string, err error) refusal {
	why := refusalOf(err)
	if why != denied {
		return why
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return final
	}
	h, err := windows.CreateFile(name, windows.DELETE, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err == nil {
		windows.CloseHandle(h)
		return shared
	}
	return refusalOf(err)
}

// isUnknown reports whether err is that of a way that the system, or the file
// system, does not know.
func isUnknown(err error) bool {
	for _, unknown := range []error{windows.ERROR_INVALID_PARAMETER, windows.ERROR_INVALID_FUNCTION, windows.ERROR_NOT_SUPPORTED,
		windows.ERROR_CALL_NOT_IMPLEMENTED, windows.ERROR_INVALID_LEVEL} {
		if errors.Is(err, unknown) {
			return true
		}
	}
	return false
}

// renameHandle renames an open file.
func renameHandle(h windows.Handle, to string, class, flags uint32) error {
	name, err := windows.UTF16FromString(to)
	if err != nil {
		return err
	}
	type info struct { // FILE_RENAME_INFO
		flags  uint32 // in the class FileRenameInfo: whether to replace
		folder windows.Handle
		length uint32
		name   [1]uint16
	}
	const head = unsafe.Offsetof(info{}.name)
	buffer := make([]uint64, (int(head)+2*len(name)+7)/8+1) // uint64: aligned
	i := (*info)(unsafe.Pointer(&buffer[0]))
	i.flags, i.length = flags, uint32(2*(len(name)-1))
	copy(unsafe.Slice(&i.name[0], len(name)), name)
	return windows.SetFileInformationByHandle(h, class, (*byte)(unsafe.Pointer(i)), uint32(int(head)+2*len(name)))
}

// dispose deletes an open file, also one with the attribute "read-only". With POSIX
// semantics its name is free at once, else when nobody has it open any more.
func dispose(h windows.Handle) error {
	return firstKnown(isUnknown,
		func() error {
			flags := uint32(windows.FILE_DISPOSITION_DELETE | windows.FILE_DISPOSITION_POSIX_SEMANTICS | windows.FILE_DISPOSITION_IGNORE_READONLY_ATTRIBUTE)
			return windows.SetFileInformationByHandle(h, windows.FileDispositionInfoEx, (*byte)(unsafe.Pointer(&flags)), 4)
		},
		func() error {
			yes := byte(1)
			return windows.SetFileInformationByHandle(h, windows.FileDispositionInfo, &yes, 1)
		})
}

// makeWritable takes away the attribute "read-only", which keeps a file from being
// replaced or deleted where that cannot be ignored.
func makeWritable(path string) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return
	}
	if attr, err := windows.GetFileAttributes(name); err == nil && attr&windows.FILE_ATTRIBUTE_READONLY != 0 {
		_ = windows.SetFileAttributes(name, attr&^windows.FILE_ATTRIBUTE_READONLY)
	}
}

// leftoverAge: a file that its writer has open cannot be removed, but where it has
// to be closed before it is renamed, it can be in between.
const leftoverAge = time.Minute

// removeIfDead removes the temporary file if it is closed and old.
func removeIfDead(path string) {
	// Not with a living writer: nobody else may write then.
	f, err := openHandle(once, path, windows.DELETE|windows.FILE_READ_ATTRIBUTES|windows.FILE_WRITE_DATA)
	if err != nil {
		return
	}
	defer windows.CloseHandle(f.h)
	if f.check(path) == nil && time.Since(time.Unix(0, f.stamp.Mtime)) > leftoverAge {
		_ = dispose(f.h)
	}
}

func renameNew(ctx context.Context, from, to string) error {
	return retryBusy(ctx, from, refusalOf, func() error { return move(from, to, windows.MOVEFILE_WRITE_THROUGH) })
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

// Explain returns err: advice is known on Unix only.
func Explain(_ string, err error) error { return err }

// mayMakeIn is about sudo.
func mayMakeIn(_, _ string) error { return nil }

// remove deletes the file by its handle.
func remove(ctx context.Context, path string) error {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return retryBusy(ctx, path, refusalOf, func() error {
		h, err := windows.CreateFile(name, windows.DELETE|windows.FILE_READ_ATTRIBUTES, shareAll, nil, windows.OPEN_EXISTING,
			windows.FILE_FLAG_OPEN_REPARSE_POINT|windows.FILE_FLAG_WRITE_THROUGH, 0)
		if err == nil {
			if err = dispose(h); errors.Is(err, windows.ERROR_ACCESS_DENIED) {
				makeWritable(path)
				err = dispose(h)
			}
			windows.CloseHandle(h)
		}
		if err != nil {
			return &fs.PathError{Op: "remove", Path: path, Err: err}
		}
		return nil
	})
}
