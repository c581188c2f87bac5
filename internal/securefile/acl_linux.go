package securefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// aclWriter returns who else can write the file or folder by a POSIX access
// control list, or "". Root and the user's private group do not count.
func aclWriter(path string) (who string, err error) {
	list, n := make([]byte, 512), 0
	get := func() (err error) {
		n, err = unix.Getxattr(path, "system.posix_acl_access", list)
		return err
	}
	if err = again(get); err == unix.ERANGE {
		list = make([]byte, 64<<10) // as long as an attribute can be
		err = again(get)
	}
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS):
		return "", nil
	case err != nil:
		return "", &fs.PathError{Op: "getxattr", Path: path, Err: err}
	}
	return aclGrants(list[:n], 2, os.Geteuid()) // 2: write
}

// The form in which the kernel shows a list: a version, then entries of a tag, a
// set of rights and an id, little-endian.
const (
	aclVersion = 2
	aclUser    = 0x02
	aclGroup   = 0x08
	aclMask    = 0x10
)

// aclGrants returns the first user or group that the list names and gives the
// right, but for root, the user and the user's private group.
func aclGrants(list []byte, right uint16, euid int) (who string, err error) {
	if len(list) < 4 || len(list)%8 != 4 || binary.LittleEndian.Uint32(list) != aclVersion {
		return "", errors.New("the access control list has an unknown form")
	}
	mask := right
	for e := list[4:]; len(e) > 0; e = e[8:] {
		if binary.LittleEndian.Uint16(e) == aclMask {
			mask &= binary.LittleEndian.Uint16(e[2:])
		}
	}
	for e := list[4:]; len(e) > 0; e = e[8:] {
		tag, rights, id := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint16(e[2:]), binary.LittleEndian.Uint32(e[4:])
		if rights&mask == 0 || id == 0 || id == uint32(euid) {
			continue
		}
		switch tag {
		case aclUser:
			return fmt.Sprintf("user %d", id), nil
		case aclGroup:
			return fmt.Sprintf("group %d", id), nil
		}
	}
	return "", nil
}
