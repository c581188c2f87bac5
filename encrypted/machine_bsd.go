//go:build freebsd || dragonfly || openbsd || netbsd

package encrypted

import (
	"context"

	"golang.org/x/sys/unix"
)

// readMachine returns the machine's UUID, or "" if it has none.
func readMachine(context.Context) (id, host string) {
	for _, name := range []string{"kern.hostuuid", "hw.uuid", "machdep.dmi.system-uuid"} {
		if id, err := unix.Sysctl(name); err == nil && id != "" {
			return id, ""
		}
	}
	return "", ""
}
