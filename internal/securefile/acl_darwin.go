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
func removeACL(f *os.File, mode uint32) {
	const (
		keep   = ^uintptr(100) & 0xFFFFFFFF // KAUTH_UID_NONE and KAUTH_GID_NONE: the owner stays
		remove = 1                          // _FILESEC_REMOVE_ACL
	)
	_ = again(func() error {
		_, _, errno := unix.Syscall6(sysFchmodExtended, f.Fd(), keep, keep, uintptr(mode), remove, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
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
