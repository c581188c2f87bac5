//go:build unix

package securefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/shell"
)

// This file says what the user can do where a file or a folder cannot be used.

// Explain adds advice to an error of the system about path, if it is one that the
// user can do something about. Else it returns err.
func Explain(path string, err error) error {
	var errno unix.Errno
	if err == nil || !errors.As(err, &errno) {
		return err
	}
	e := &Error{Path: path, Reason: "cannot be used: " + errno.Error(), Err: err}
	switch errno {
	case unix.EROFS:
		e.Advice, e.Elsewhere = "The file system is read-only. Use a folder that can be written.", true
	case unix.EACCES, unix.EPERM:
		if e.Advice = giveBack(filepath.Dir(path)); e.Advice == "" && errno == unix.EPERM {
			e.Advice = protectedAdvice(path)
		}
	}
	if e.Advice == "" {
		return err
	}
	return e
}

func protectedAdvice(path string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	if path, err = filepath.Abs(path); err != nil {
		return ""
	}
	return adviseProtected(runtime.GOOS, home, path)
}

// adviseOwner says what can be done about a file that is another user's.
func adviseOwner(path string, st *unix.Stat_t) string {
	euid := os.Geteuid()
	if euid == 0 {
		return fmt.Sprintf("Run the program as user %d, without sudo, or move the file away.", st.Uid)
	}
	if advice := giveBack(filepath.Dir(path)); st.Uid == 0 && advice != "" {
		return advice
	}
	return fmt.Sprintf("If a run as another user (sudo) made it, give it back with: sudo chown %d %s", euid, shell.Quote(path))
}

// giveBack says how to repair a folder of the user that a run with sudo has made
// root's, or "".
func giveBack(dir string) string {
	if dir = madeByRoot(dir); dir == "" {
		return ""
	}
	return fmt.Sprintf("A run with sudo has made the folder root's. Give it back with: sudo chown -R %d %s", os.Geteuid(), shell.Quote(dir))
}

// madeByRoot returns the highest folder on the way to dir that is root's and lies
// in a folder of the user, or "".
func madeByRoot(dir string) (found string) {
	euid := os.Geteuid()
	if euid == 0 {
		return ""
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		var st, above unix.Stat_t
		if unix.Stat(dir, &st) == nil && st.Uid == 0 && unix.Stat(parent, &above) == nil && int(above.Uid) == euid {
			found = dir
		}
	}
	return found
}

// mayMakeIn returns an error if a folder made in parent would be root's in the
// home of the user who has called sudo: later runs without sudo could not use it.
func mayMakeIn(parent, dir string) error {
	caller, err := strconv.Atoi(os.Getenv("SUDO_UID"))
	var st unix.Stat_t
	if err != nil || caller == 0 || os.Geteuid() != 0 || unix.Stat(parent, &st) != nil || int(st.Uid) != caller {
		return nil
	}
	return &Error{Path: dir, Reason: fmt.Sprintf("is not made: it would belong to root, in a folder of user %d", caller), Err: unix.EPERM,
		Advice: "Run the program without sudo. If it is to keep the data of root, run it with: sudo -H"}
}

// adviseDir says what can be done about a folder that others can write, or that is
// another user's. elsewhere reports whether that is to use another one.
func adviseDir(dir string, st *unix.Stat_t) (advice string, elsewhere bool) {
	euid := os.Geteuid()
	own, volume := int(st.Uid) == euid, st.Mode&(unix.S_ISGID|0o020) == unix.S_ISGID|0o020
	switch {
	case !own && st.Uid != 0 && euid == 0:
		return fmt.Sprintf("Run the program as user %d, without sudo, or use a folder of root.", st.Uid), false
	case !own && st.Uid != 0:
		return fmt.Sprintf("Run the program as user %d (a container with --user %d), or give the folder to this one with: sudo chown -R %d %s", st.Uid, st.Uid, euid, shell.Quote(dir)), false
	case own && !keepsModes(dir):
		return modelessAdvice, true
	case own && volume:
		return "Close it with: chmod 700 " + shell.Quote(dir) + ". Where Kubernetes' fsGroup opens it at each start, set fsGroupChangePolicy: OnRootMismatch.", false
	case own:
		return "Close it with: chmod 700 " + shell.Quote(dir), false
	case volume:
		return "Use a new folder below it, which is then made for you alone.", true
	}
	return "Use a folder that only you can write, such as one that `mkdir -m 700` makes.", true
}

const modelessAdvice = "The file system does not keep files private; use a folder on another one. (In WSL, drives of Windows such as /mnt/c are of this kind, and the Linux home folder is not.)"

// keepsModes reports whether files in the folder, which is the user's own, can have
// a mode of their own. It makes a file for a moment. Tests replace it: no file system
// of that kind can be mounted everywhere.
var keepsModes = func(dir string) bool {
	f, err := os.CreateTemp(dir, ".mode-*.tmp")
	if err != nil {
		return true // not known
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var st unix.Stat_t
	return f.Chmod(0o600) == nil && fstat(f, &st) == nil && st.Mode&0o777 == 0o600
}
