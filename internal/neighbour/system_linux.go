package neighbour

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const noAccessTime = unix.O_NOATIME

// Mounted reports whether the file that path leads to is mounted by itself, as into
// a container: then it can be written in place, but not replaced.
func Mounted(path string) bool {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(mounts) {
		if fields := strings.Fields(string(line)); len(fields) > 4 && unescape.Replace(fields[4]) == path {
			return true
		}
	}
	return false
}

// unescape undoes what the kernel does to names in lists of mounts.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
