//go:build unix

package securefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/shell"
)

// Stamp tells one state of a file from another, as far as the file system
// tells: coarse time stamps and reused inodes can make two states look alike.
// Stamps are compared with ==. No file has the zero Stamp.
type Stamp struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds since 1970
}

func stampOf(st *unix.Stat_t) Stamp {
	return Stamp{
		Dev: uint64(st.Dev), Ino: uint64(st.Ino), Size: st.Size,
		Mtime: unix.TimespecToNsec(st.Mtim), Ctime: unix.TimespecToNsec(st.Ctim),
	}
}

func (s Stamp) id() ID { return ID{Dev: s.Dev, Ino: s.Ino} }

// Stat returns the stamp of what is at path, without any check: one system
// call. Where nothing is, the error is an fs.ErrNotExist.
func Stat(path string) (Stamp, error) {
	var st unix.Stat_t
	if err := lstat(path, &st); err != nil {
		return Stamp{}, err
	}
	return stampOf(&st), nil
}

func lstat(path string, st *unix.Stat_t) error {
	if err := again(func() error { return unix.Lstat(path, st) }); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return nil
}

func fstat(f *os.File, st *unix.Stat_t) error {
	if err := again(func() error { return unix.Fstat(int(f.Fd()), st) }); err != nil {
		return &fs.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return nil
}

// again repeats what a signal interrupts.
func again(do func() error) error {
	for {
		if err := do(); err != unix.EINTR {
			return err
		}
	}
}

// open opens the file, whatever it is, and checks it. It follows no link and does
// not wait for the other end of a FIFO.
func open(_ context.Context, path string, flag int, forbidden uint32) (*os.File, Stamp, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		// What is there is a better reason than this system's error number.
		var st unix.Stat_t
		if lstat(path, &st) == nil {
			if why := check(path, &st, forbidden); why != nil {
				return nil, Stamp{}, why
			}
		}
		return nil, Stamp{}, Explain(path, err)
	}
	st, err := checkOpen(path, int(f.Fd()), forbidden)
	if err != nil {
		f.Close()
		return nil, Stamp{}, err
	}
	return f, stampOf(st), nil
}

// checkOpen checks the open file, and closes it to a volume's group.
func checkOpen(path string, fd int, forbidden uint32) (*unix.Stat_t, error) {
	var st unix.Stat_t
	stat := func() error {
		if err := again(func() error { return unix.Fstat(fd, &st) }); err != nil {
			return &fs.PathError{Op: "fstat", Path: path, Err: err}
		}
		return nil
	}
	if err := stat(); err != nil {
		return nil, err
	}
	if openedByVolume(path, &st) {
		switch err := again(func() error { return unix.Fchmod(fd, 0o600) }); {
		case err == nil:
			if err := stat(); err != nil {
				return nil, err
			}
		case errors.Is(err, unix.EROFS): // it cannot be closed, and nobody can change it here
			return &st, nil
		}
	}
	return &st, check(path, &st, forbidden)
}

// A volume with a group of its own opens to that group what was made closed: files
// of mode 0600 become 0660, folders of mode 0700 become 2770; of a volume that is
// mounted read-only 0640 and 2750.
const (
	volumeFileMode     = 0o660
	volumeDirMode      = 0o2770
	readOnlyVolumeFile = 0o640
	readOnlyVolumeDir  = 0o2750
)

// openedByVolume reports whether the file is the user's own, has the mode that a
// volume's group gives it, and lies where nobody else can have changed it.
func openedByVolume(path string, st *unix.Stat_t) bool {
	mode := uint32(st.Mode)
	if mode != unix.S_IFREG|volumeFileMode && mode != unix.S_IFREG|readOnlyVolumeFile || int(st.Uid) != os.Geteuid() || st.Nlink != 1 {
		return false
	}
	dir := filepath.Dir(path)
	var d unix.Stat_t
	if again(func() error { return unix.Stat(dir, &d) }) != nil {
		return false
	}
	if mode == unix.S_IFREG|readOnlyVolumeFile && uint32(d.Mode) != unix.S_IFDIR|readOnlyVolumeDir {
		return false
	}
	closeToVolume(dir, &d)
	return int(d.Uid) == os.Geteuid() && d.Mode&0o077 == 0
}

// closeToVolume closes the folder again if it looks as one that was made with
// mode 0700 looks after a volume's group was given access: it has the mode of
// those, and nothing is in it but the user's own files and folders, closed to
// others. An empty one stays as it is: it may be meant to be shared.
func closeToVolume(dir string, st *unix.Stat_t) {
	mode := uint32(st.Mode)
	if mode != unix.S_IFDIR|volumeDirMode && mode != unix.S_IFDIR|readOnlyVolumeDir || int(st.Uid) != os.Geteuid() || !allOwn(dir) {
		return
	}
	switch err := setDirMode(dir); {
	case err == nil:
		_ = again(func() error { return unix.Stat(dir, st) })
	case errors.Is(err, unix.EROFS): // nobody can write it here
		st.Mode &^= 0o077
	}
}

func allOwn(dir string) bool {
	d, err := openDir(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	for some := false; ; some = true {
		names, err := d.Readdirnames(64)
		for _, name := range names {
			var st unix.Stat_t
			if lstat(filepath.Join(dir, name), &st) != nil {
				return false
			}
			kind := uint32(st.Mode) & unix.S_IFMT
			if int(st.Uid) != os.Geteuid() || st.Mode&0o007 != 0 || kind != unix.S_IFREG && kind != unix.S_IFDIR {
				return false
			}
		}
		if err != nil {
			return errors.Is(err, io.EOF) && some
		}
	}
}

// setDirMode sets the mode of a folder that is the user's own.
func setDirMode(dir string) error { return os.Chmod(dir, 0o700) }

// MakeEmpty makes an empty file at path, mode 0600 whatever the umask is, unless
// one is there, and checks it as [Open] does. Others who can read a lock file can
// hold the lock: from a file that is there already their rights to read are taken
// away.
func MakeEmpty(path string) error {
	for {
		var st unix.Stat_t
		err := lstat(path, &st)
		if errors.Is(err, fs.ErrNotExist) {
			if err := create(path); !errors.Is(err, fs.ErrExist) {
				return Explain(path, err)
			}
			continue
		}
		if err != nil {
			return Explain(path, err)
		}
		if !openedByVolume(path, &st) {
			if err := check(path, &st, 0o022); err != nil {
				return err
			}
		}
		if uint32(st.Mode)&0o7777 == 0o600 {
			return nil
		}
		if err := os.Chmod(path, 0o600); !errors.Is(err, fs.ErrNotExist) {
			return Explain(path, err)
		}
	}
}

// create creates the file, which must not exist, with mode 0600. After a failure
// it stays: another process may have locked it by then.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err = fstat(f, &st); err == nil {
		err = checkNew(path, &st)
	}
	if err != nil {
		return err
	}
	return setMode(f)
}

// checkNew checks a file that was just created with mode 0600. A file system
// without owners and modes shows its files to everybody.
func checkNew(path string, st *unix.Stat_t) error {
	err := check(path, st, 0o077)
	var e *Error
	if errors.As(err, &e) {
		e.Advice, e.Elsewhere = modelessAdvice, true
	}
	return err
}

// setMode gives a file that was just created with mode 0600 that mode, which a
// umask may have narrowed, and no access control list beside it. A list that cannot be
// removed is an error for plaintext only (see temp.keepPlain): what is encrypted nobody can
// read or change unseen, and a lock file holds nothing.
func setMode(f *os.File) error {
	_ = removeACL(f, 0o600)
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return err
	}
	if uint32(st.Mode)&0o7777 == 0o600 {
		return nil
	}
	return f.Chmod(0o600)
}

// openToRead is open without an *os.File, which costs more than reading the file
// does.
func openToRead(_ context.Context, path string, forbidden uint32) (_ io.ReadCloser, _ Stamp, err error) {
	var fd int
	if err := again(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		return err
	}); err != nil {
		var st unix.Stat_t
		if lstat(path, &st) == nil {
			if why := check(path, &st, forbidden); why != nil {
				return nil, Stamp{}, why
			}
		}
		return nil, Stamp{}, Explain(path, &fs.PathError{Op: "open", Path: path, Err: err})
	}
	f := descriptor(fd)
	st, err := checkOpen(path, fd, forbidden)
	if err != nil {
		f.Close()
		return nil, Stamp{}, err
	}
	return f, stampOf(st), nil
}

// descriptor is an open regular file.
type descriptor int

func (d descriptor) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	err = again(func() error { n, err = unix.Read(int(d), p); return err })
	switch {
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (d descriptor) Close() error { return os.NewSyscallError("close", unix.Close(int(d))) }

// checkTarget checks the file that will be replaced or removed. Its mode does not
// matter: the new file gets its own.
func checkTarget(path string) error {
	var st unix.Stat_t
	if err := lstat(path, &st); err != nil {
		return err
	}
	return check(path, &st, 0)
}

func check(path string, st *unix.Stat_t, forbidden uint32) error {
	insecure := func(remedy, reason string, args ...any) error {
		return &Error{Path: path, Reason: fmt.Sprintf(reason, args...), Advice: remedy, Err: fs.ErrPermission}
	}
	mode := uint32(st.Mode)
	if mode&unix.S_IFMT != unix.S_IFREG {
		return insecure("Move it away.", "is %s, not a regular file", kind(mode))
	}
	if euid := os.Geteuid(); int(st.Uid) != euid {
		return insecure(adviseOwner(path, st), "belongs to user %d, and this program runs as user %d", st.Uid, euid)
	}
	if st.Nlink > 1 {
		return insecure("Remove its other names, or replace it with a copy.", "has %d names (hard links)", st.Nlink)
	}
	if mode&forbidden != 0 {
		return insecure(fmt.Sprintf("Close it to others with: chmod 600 %s", shell.Quote(path)), "is open to other users (mode %04o)", mode&0o7777)
	}
	return nil
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFDIR:
		return "a folder"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a device"
}

// checkDir fails if somebody else can rename or delete files in dir.
func checkDir(dir string) error { return checkFolder(dir, true, false) }

// useDir is checkDir for a folder whose files are used: it sets the mode of one
// that is the user's own where a volume's group or a umask has changed it.
func useDir(dir string) error { return checkFolder(dir, true, true) }

func checkFolder(dir string, stickyIsFine, mend bool) error {
	if dir == "" {
		dir = "."
	}
	var st unix.Stat_t
	if err := again(func() error { return unix.Stat(dir, &st) }); err != nil {
		return Explain(dir, &fs.PathError{Op: "stat", Path: dir, Err: err})
	}
	insecure := func(reason string, args ...any) error {
		advice, elsewhere := adviseDir(dir, &st)
		return &Error{Path: dir, Reason: fmt.Sprintf(reason, args...), Advice: advice, Elsewhere: elsewhere, Err: fs.ErrPermission}
	}
	euid := os.Geteuid()
	if mend && st.Mode == unix.S_IFDIR && int(st.Uid) == euid && setDirMode(dir) == nil {
		// A umask left it without any rights: a process died before it set them.
		st.Mode |= 0o700
	}
	if privateGroup := int(st.Gid) == euid || st.Gid == 0; mend && st.Mode&0o020 != 0 && !privateGroup {
		closeToVolume(dir, &st)
	}
	mode := uint32(st.Mode)
	switch {
	case mode&unix.S_IFMT != unix.S_IFDIR:
		return &Error{Path: dir, Reason: "is not a folder", Err: unix.ENOTDIR}
	case int(st.Uid) != euid && st.Uid != 0:
		return insecure("is a folder of user %d, and this program runs as user %d", st.Uid, euid)
	case mode&unix.S_ISVTX != 0 && stickyIsFine:
		return nil
	case mode&0o002 != 0:
		return insecure("is a folder that every user can write (mode %04o)", mode&0o7777)
	case mode&0o020 != 0 && int(st.Gid) != euid && st.Gid != 0:
		return insecure("is a folder that group %d can write (mode %04o)", st.Gid, mode&0o7777)
	case mode&0o020 != 0: // which also stands for what an access control list grants at most
		who, err := aclWriter(dir)
		if err != nil {
			return err
		}
		if who != "" {
			return insecure("is a folder that %s can write, by its access control list", who)
		}
	}
	return nil
}

func dirID(dir string) (ID, error) {
	if dir == "" {
		dir = "."
	}
	var st unix.Stat_t
	if err := again(func() error { return unix.Stat(dir, &st) }); err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	return stampOf(&st).id(), nil
}

// readLink returns where the symbolic link at path leads, or "" if there is none.
func readLink(path string) (string, error) {
	var st unix.Stat_t
	if err := lstat(path, &st); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", Explain(path, err)
	}
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFLNK {
		return "", nil
	}
	refuse := func(reason string, err error) error {
		return &Error{
			Path: path, Reason: "is a symbolic link that is not followed: " + reason, Err: err,
			Advice: "Name the file itself, or put the link where only you can write.",
		}
	}
	if int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return "", refuse(fmt.Sprintf("it belongs to user %d", st.Uid), fs.ErrPermission)
	}
	// The folder's real path, so that ".." in the link means what it means to
	// the system.
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	if err := checkFolder(dir, false, true); err != nil {
		return "", refuse(err.Error(), err)
	}
	target, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	if err := checkFolder(filepath.Dir(target), false, true); err != nil {
		return "", refuse(err.Error(), err)
	}
	return target, nil
}

func openDir(dir string) (*os.File, error) {
	if dir == "" {
		dir = "."
	}
	// With O_NONBLOCK package os spares itself four calls to find out whether the
	// file can be polled; on folders and regular files it has no other effect.
	return os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// syncDir flushes the folder. Some file systems (FUSE, network) cannot and say
// so; then a rename is as durable as they make it.
func syncDir(d *os.File) error {
	err := Flush(d)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// temp is a temporary file. As long as its writer lives, it is locked with
// flock, which tells everybody else, in whatever container, to leave it alone.
type temp struct {
	path string
	f    *os.File
	lock *os.File // a duplicate of f: it keeps the lock when f is closed
}

func createTempAt(path string) (*temp, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, errTaken
	}
	if err != nil {
		return nil, Explain(path, err)
	}
	t, err := newTemp(path, f)
	if err != nil {
		if !errors.Is(err, errTaken) && named(path, f) {
			os.Remove(path)
		}
		f.Close()
		return nil, err
	}
	return t, nil
}

// named reports whether path is the name of the open file.
func named(path string, f *os.File) bool {
	var mine, there unix.Stat_t
	return fstat(f, &mine) == nil && lstat(path, &there) == nil && mine.Dev == there.Dev && mine.Ino == there.Ino
}

func newTemp(path string, f *os.File) (*temp, error) {
	// Without flock (some network file systems) nobody can lock the file to
	// remove it either.
	if err := flock(f); err == unix.EWOULDBLOCK {
		return nil, errTaken
	}
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return nil, err
	}
	if st.Nlink == 0 { // another process took it for a left-over one before it was locked
		return nil, errTaken
	}
	if err := checkNew(path, &st); err != nil {
		return nil, err
	}
	if err := setMode(f); err != nil {
		return nil, err
	}
	var fd int
	if err := again(func() (err error) {
		fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return err
	}); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &temp{path, f, os.NewFile(uintptr(fd), path)}, nil
}

// release closes what is open of the file.
func (t *temp) release() {
	t.f.Close()
	t.lock.Close()
}

// written is for the end of writing: it closes the file.
func (t *temp) written() error { return t.f.Close() }

// discard removes the file while it still has its temporary name.
func (t *temp) discard() { os.Remove(t.path) }

// rename gives the file its name.
func (t *temp) rename(_ context.Context, path string) error { return os.Rename(t.path, path) }

// sync makes the rename durable. It returns the step that failed.
func (t *temp) sync(dir *os.File) (step string, err error) { return "fsync folder", syncDir(dir) }

// inPlace reports whether the temporary file still has its temporary name.
func (t *temp) inPlace() bool { return named(t.path, t.lock) }

// stamp returns the file's stamp under its new name.
func (t *temp) stamp(string) (Stamp, error) {
	var st unix.Stat_t
	if err := fstat(t.lock, &st); err != nil {
		return Stamp{}, err
	}
	return stampOf(&st), nil
}

func flock(f *os.File) error {
	return again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
}

// removeIfDead removes the temporary file if nobody has it locked. Only a process
// that has it locked removes or renames it, so path still names the file that was
// checked.
func removeIfDead(path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if fstat(f, &st) != nil || check(path, &st, 0) != nil || flock(f) != nil || !named(path, f) {
		return
	}
	os.Remove(path)
}

func remove(_ context.Context, path string) error { return os.Remove(path) }
