//go:build unix

package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

const isWindows = false

const isDarwin = runtime.GOOS == "darwin"

func enableColour(any) bool { return true }

// foreign says who owns the file if it is not this user.
func foreign(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(st.Uid) == os.Geteuid():
		return ""
	case st.Uid == 0:
		return "root"
	}
	return fmt.Sprintf("another user (%d)", st.Uid)
}

func modeWords(fi fs.FileInfo) string {
	if fi.Mode().Perm()&0o077 == 0 {
		return ", yours alone"
	}
	return fmt.Sprintf(", mode %04o", fi.Mode().Perm())
}

// writable returns nil if files can be made in dir or, if dir does not exist, in the
// first folder above it that does.
func writable(dir string) error {
	for {
		err := unix.Access(dir, unix.W_OK|unix.X_OK)
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir)
			continue
		}
		return err
	}
}

// lockHeld reports whether somebody has the file locked. To find out, it takes a
// shared lock for a moment; a process that wants the lock then waits for that moment.
func lockHeld(ctx context.Context, path string) (bool, error) {
	f, err := securefile.Open(ctx, path, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return flocked(f)
}

func flocked(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		switch err {
		case nil:
			return false, nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return true, nil
		default:
			return false, err
		}
	}
}

// abandoned reports whether nobody writes the temporary file any more: its writer
// has it locked.
func abandoned(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	held, err := flocked(f)
	return err != nil || !held
}

func processAlive(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || err == unix.EPERM
}

func commandExists(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}
