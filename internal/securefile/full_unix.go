//go:build unix

package securefile

import "syscall"

var (
	fullCodes     = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT}
	readOnlyCodes = []syscall.Errno{syscall.EROFS}
)
