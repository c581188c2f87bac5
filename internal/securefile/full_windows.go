package securefile

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// Windows has codes of its own; that Go calls one of them syscall.ENOSPC does not
// make them it.
var (
	fullCodes     = []syscall.Errno{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED}
	readOnlyCodes = []syscall.Errno{windows.ERROR_WRITE_PROTECT}
)
