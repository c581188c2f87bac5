package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// holdsLock reports whether the process with that id certainly has the file at path
// locked: the kernel says so for each file that the process has open. So an id from
// another pid namespace, another machine or an earlier boot is not taken for that of
// an innocent process here.
func holdsLock(pid int, path string) bool {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return false // this /proc counts the processes of another namespace
	}
	lock, err := os.Stat(path)
	if err != nil {
		return false
	}
	process := filepath.Join("/proc", strconv.Itoa(pid))
	open, err := os.ReadDir(filepath.Join(process, "fd"))
	if err != nil { // another user's process, or none
		return false
	}
	for _, fd := range open {
		fi, err := os.Stat(filepath.Join(process, "fd", fd.Name()))
		if err != nil || !os.SameFile(fi, lock) {
			continue
		}
		info, err := os.ReadFile(filepath.Join(process, "fdinfo", fd.Name()))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(info) {
			if bytes.HasPrefix(line, []byte("lock:")) && bytes.Contains(line, []byte("FLOCK")) && bytes.Contains(line, []byte("WRITE")) {
				return true
			}
		}
	}
	return false
}
