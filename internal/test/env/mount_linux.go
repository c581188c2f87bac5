package env

import "os/exec"

// CanMount reports whether this process can mount file systems in a mount namespace
// of its own.
func CanMount() bool {
	return exec.Command("unshare", "-m", "sh", "-c", "mount --make-rprivate / && mount -t tmpfs none /mnt").Run() == nil
}
