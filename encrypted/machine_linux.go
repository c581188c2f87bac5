package encrypted

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// readMachine returns the machine's id, or "" if it has none that can be read, and
// what distinguishes machines that have the same one. See machine-id(5).
func readMachine(context.Context) (id, host string) {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if id := readWord(path); id != "" && id != "uninitialized" {
			return id, hostOf(path, readWord("/proc/self/mountinfo"), readWord("/etc/hostname"))
		}
	}
	return "", ""
}

// hostOf returns what distinguishes this machine from others with the same id: machines
// are copied with their id, and images of containers are made with one. It is the
// machine's own name, not one that a network has given it. In a container, the folder
// that keeps the container's changes is added. hostOf returns "" if the file at path,
// which has the id, is mounted by itself: then the id is that of the host, and the host
// has another name than the container.
func hostOf(path, mountinfo, name string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	at, upper := mountOf(path, mountinfo)
	switch {
	case at == path:
		return ""
	case upper == "":
		return name
	}
	return name + " " + upper
}

// mountOf returns where the file system is mounted that has the file, and the folder
// with its changes if it is an overlay.
func mountOf(path, mountinfo string) (at, upper string) {
	for line := range strings.Lines(mountinfo) {
		mount, rest, _ := strings.Cut(line, " - ")
		fields, more := strings.Fields(mount), strings.Fields(rest)
		if len(fields) < 5 || len(more) < 3 {
			continue
		}
		point := unescapeMount.Replace(fields[4])
		if rel, err := filepath.Rel(point, path); err != nil || !filepath.IsLocal(rel) || len(point) < len(at) {
			continue
		}
		at, upper = point, "" // the last one at a place hides the others
		for option := range strings.SplitSeq(more[2], ",") {
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
				upper = dir
			}
		}
	}
	return at, upper
}

// unescapeMount undoes what the kernel does to names in mountinfo.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// readBootID returns the id of this boot, which the kernel makes at random, or "".
func readBootID() string { return readWord("/proc/sys/kernel/random/boot_id") }

// readUserNamespace returns the name of this process's user namespace, which is
// unique until the next boot, or "".
func readUserNamespace() string {
	name, _ := os.Readlink("/proc/self/ns/user")
	return name
}

func readWord(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}
