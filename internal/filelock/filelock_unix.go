//go:build unix

package filelock

import (
	"errors"

	"golang.org/x/sys/unix"
)

const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY

func interrupted(err error) bool { return errors.Is(err, unix.EINTR) }

func noLocks(err error) bool {
	return errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// keptOpen reports false: every program shares what it opens.
func keptOpen(error) bool { return false }
