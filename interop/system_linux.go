package interop

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

type unixStat = syscall.Stat_t

// unnamed makes a file without a name in the folder: a killed process leaves
// nothing behind. It returns nil where there are no such files.
func unnamed(dir string) *os.File {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), dir)
	if _, err := os.Stat(procPath(f)); err != nil {
		f.Close()
		return nil
	}
	return f
}

func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

func linkUnnamed(f *os.File, to string) error {
	err := unix.Linkat(unix.AT_FDCWD, procPath(f), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &os.LinkError{Op: "link", Old: "a new file", New: to, Err: err}
	}
	return nil
}

// networkKind returns the kind of a network file system on which the folder is, or
// "".
func networkKind(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.SMB_SUPER_MAGIC, 0xFF534D42, 0xFE534D42:
		return "SMB"
	case unix.AFS_SUPER_MAGIC, 0x01021997:
		return "a shared folder"
	}
	return ""
}
