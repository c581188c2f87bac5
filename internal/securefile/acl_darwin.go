package securefile

import (
	"os"

	"golang.org/x/sys/unix"
)

// sysFchmodExtended is fchmod_extended(2), which the C library's fchmodx_np uses.
const sysFchmodExtended = 283

// removeACL sets the mode of an open file or folder, and removes the access control
// list that it has inherited from its folder: on macOS a list grants rights beside
// those of the mode. A file system without lists fails, and has none to remove.
//
// By Apple's published xnu (vfs_syscalls.c), kernels of today remove the list for the
// word of the C library, as chmod_extended does. Old ones take that word for an
// address and fail; for them no address means to remove.
func removeACL(f *os.File, mode uint32) {
	const (
		keep      = ^uintptr(100) & 0xFFFFFFFF // KAUTH_UID_NONE and KAUTH_GID_NONE: the owner stays
		remove    = 1                          // _FILESEC_REMOVE_ACL
		removeOld = 0
	)
	set := func(list uintptr) error {
		return again(func() error {
			if _, _, errno := unix.Syscall6(sysFchmodExtended, f.Fd(), keep, keep, uintptr(mode), list, 0); errno != 0 {
				return errno
			}
			return nil
		})
	}
	if set(remove) == unix.EFAULT {
		_ = set(removeOld)
	}
}

// mkdir makes the folder, without an access control list beside its mode.
func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if d, err := openDir(dir); err == nil {
		removeACL(d, 0o700)
		d.Close()
	}
	return nil
}
