//go:build unix && !linux

package encrypted

import "golang.org/x/sys/unix"

// readOnly reports whether path is on a file system that is mounted to be read
// only, as far as this user can see that.
func readOnly(path string) bool { return unix.Access(path, unix.W_OK) == unix.EROFS }
