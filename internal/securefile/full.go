package securefile

import (
	"errors"
	"slices"
	"syscall"
)

// IsFull reports whether err says that there is no room, on the disk or for the user.
func IsFull(err error) bool { return hasCode(err, fullCodes) }

// IsReadOnly reports whether err says that nothing can be written to the disk.
func IsReadOnly(err error) bool { return hasCode(err, readOnlyCodes) }

func hasCode(err error, codes []syscall.Errno) bool {
	var code syscall.Errno
	return errors.As(err, &code) && slices.Contains(codes, code)
}
