package encrypted

import (
	"context"
	"os"
	"strings"
)

// readMachineID returns the machine's id, or "" if it has none that can be read.
// See machine-id(5).
func readMachineID(context.Context) string {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if id := readWord(path); id != "" && id != "uninitialized" {
			return id
		}
	}
	return ""
}

// readBootID returns an id that the kernel makes anew at every boot, or "".
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
