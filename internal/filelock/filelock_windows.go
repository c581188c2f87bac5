package filelock

import (
	"errors"

	"golang.org/x/sys/windows"
)

const openFlags = 0

func interrupted(error) bool { return false }

func noLocks(err error) bool {
	return errors.Is(err, windows.ERROR_NOT_SUPPORTED) || errors.Is(err, windows.ERROR_INVALID_FUNCTION)
}

// keptOpen reports whether another program has the file open and does not share it.
func keptOpen(err error) bool { return errors.Is(err, windows.ERROR_SHARING_VIOLATION) }
