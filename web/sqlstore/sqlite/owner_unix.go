//go:build unix

package sqlite

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// checkOwner fails unless the file is this user's, and closed to all others. An
// access list for another user shows in the mode's bits for the group.
func checkOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("the owner of %s is not known", path)
	}
	if euid := os.Geteuid(); int(st.Uid) != euid {
		return refuse(fmt.Sprintf("If a run as another user (sudo) made it, give it back with: sudo chown %d %s", euid, shell(path)),
			"%s belongs to user %d, and this program runs as user %d", path, st.Uid, euid)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return refuse("Close it to others with: chmod 600 "+shell(path), "%s is open to other users (mode %04o)", path, mode)
	}
	return nil
}

// checkFolder fails if other users than root can make files in the folder. A
// sticky folder keeps them from replacing files, but not from making SQLite's.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("the owner of the folder %s is not known", dir)
	}
	insecure := func(format string, args ...any) error {
		return refuse("Use a folder that only this user can write, such as one made with: mkdir -m 700 "+shell(dir+"/data"), format, args...)
	}
	switch mode, euid := info.Mode().Perm(), os.Geteuid(); {
	case int(st.Uid) != euid && st.Uid != 0:
		return insecure("the folder %s belongs to user %d, and this program runs as user %d", dir, st.Uid, euid)
	case mode&0o002 != 0:
		return insecure("every user can write the folder %s (mode %04o)", dir, mode)
	case mode&0o020 != 0 && int(st.Gid) != euid && st.Gid != 0: // else it is the user's own group
		return insecure("group %d can write the folder %s (mode %04o)", st.Gid, dir, mode)
	}
	return nil
}

// shell returns a word as a POSIX shell takes it for one.
func shell(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
