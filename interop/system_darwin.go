package interop

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

type unixStat = syscall.Stat_t

// unnamed returns nil: there are no files without a name here.
func unnamed(string) *os.File { return nil }

func linkUnnamed(*os.File, string) error { return errors.ErrUnsupported }

// networkKind returns the kind of a network file system on which the folder is, or
// "".
func networkKind(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	switch kind := unix.ByteSliceToString(fileSystem(&st)); kind {
	case "nfs", "smbfs", "afpfs", "webdav":
		return kind
	}
	return ""
}

func fileSystem(st *unix.Statfs_t) []byte {
	b := make([]byte, 0, len(st.Fstypename))
	for _, c := range st.Fstypename {
		b = append(b, byte(c))
	}
	return b
}
