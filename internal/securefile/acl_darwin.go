package securefile

import (
	"os"

	"golang.org/x/sys/unix"
)

// sysFchmodExtended is fchmod_extended(2), which the C library's fchmodx_np uses.
const sysFchmodExtended = 283

// removeACL sets the mode of an open file or folder, and removes the access control
// list that it has inherited from its folder: on macOS a list grants rights beside
// those of the mode.
func removeACL(f *os.File, mode uint32) error {
	const keep = ^uintptr(100) & 0xFFFFFFFF // KAUTH_UID_NONE and KAUTH_GID_NONE: the owner stays
	return removeList(func(list uintptr) error {
		return again(func() error {
			if _, _, errno := unix.Syscall6(sysFchmodExtended, f.Fd(), keep, keep, uintptr(mode), list, 0); errno != 0 {
				return errno
			}
			return nil
		})
	})
}

// mkdir makes the folder, without an access control list beside its mode. A list that
// cannot be removed is no error: in a folder that was there before, lists are not looked
// at either, and each file in it has its own.
func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if d, err := openDir(dir); err == nil {
		_ = removeACL(d, 0o700)
		d.Close()
	}
	return nil
}
