//go:build unix

package neighbour

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens the file to read it. If the system allows it, not even the time of the last
// access changes. It does not wait, whatever is at path.
func Open(path string) (fd int, err error) { return openWith(path, 0) }

func openWith(path string, more int) (int, error) {
	flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | more
	for {
		fd, err := unix.Open(path, flags|noAccessTime, 0)
		if errors.Is(err, unix.EPERM) { // not the owner
			fd, err = unix.Open(path, flags, 0)
		}
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func open(_ context.Context, path string) (*os.File, error) { return named(path)(Open(path)) }

func openLock(_ context.Context, path string) (*os.File, error) {
	return named(path)(openWith(path, unix.O_NOFOLLOW))
}

func named(path string) func(int, error) (*os.File, error) {
	return func(fd int, err error) (*os.File, error) {
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

func alive(pid int) bool { return pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

func held(f *os.File) bool {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return errors.Is(err, unix.EWOULDBLOCK)
		}
	}
}
