package encrypted

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Machines and containers that have one machine id are told apart, and a container
// that has the id of its host is that host.
func TestWhatPartsMachinesWithOneID(t *testing.T) {
	const (
		disk    = "26 1 254:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
		overlay = "600 500 0:50 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:/var/lib/docker/overlay2/l/B,upperdir=/var/lib/docker/overlay2/41c8/diff,workdir=/var/lib/docker/overlay2/41c8/work\n"
		proc    = "21 26 0:20 / /proc rw,relatime - proc proc rw\n"
		mounted = "700 600 254:1 /etc/machine-id /etc/machine-id ro,relatime - ext4 /dev/sda1 rw\n"
		names   = "701 600 254:1 /var/lib/docker/containers/c/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw\n"
		etc     = "702 26 254:1 /etc /etc ro,relatime - ext4 /dev/sda1 rw\n"
		spaces  = "600 500 0:50 / / rw - overlay overlay rw,upperdir=/srv/a\\040b/diff\n"
	)
	const path = "/etc/no-such-machine-id"
	for name, c := range map[string]struct{ mountinfo, name, want string }{
		"a machine":                           {disk + proc, "pool-1", "pool-1"},
		"a copy of it":                        {disk + proc, "pool-2", "pool-2"},
		"one whose name a network gives":      {disk + proc, "", ""},
		"a service that may not write /etc":   {disk + etc, "pool-1", "pool-1"},
		"a container of an image with an id":  {overlay + proc + names, "c0ffee", "c0ffee /var/lib/docker/overlay2/41c8/diff"},
		"a container with the host's id":      {overlay + proc + mounted + names, "c0ffee", ""},
		"the host's id, hidden by the next":   {mounted + overlay, "c0ffee", ""},
		"an overlay over the whole of it":     {disk + spaces, "x", `x /srv/a\040b/diff`},
		"/etc is like the start of /etcetera": {disk + "9 1 254:1 / /etc/no ro - overlay o rw,upperdir=/u\n", "x", "x"},
		"nothing is known of mounts":          {"", "pool-1", "pool-1"},
		"lines that are none":                 {"a b c\n - \n" + disk, "pool-1", "pool-1"},
	} {
		t.Run(name, func(t *testing.T) {
			mountinfo := strings.ReplaceAll(c.mountinfo, "/etc/machine-id /etc/machine-id", path+" "+path)
			require.Equal(t, c.want, hostOf(path, mountinfo, c.name))
		})
	}
	at, _ := mountOf("/a b/c", `1 0 0:1 / /a\040b rw - tmpfs t rw`)
	require.Equal(t, "/a b", at)
}
