package encrypted

import "golang.org/x/sys/unix"

// readOnly reports whether path is on a file system, or reached through a mount,
// that is read-only. access(2) is not enough: to a user who may not write anyway, it
// does not tell that nobody can.
func readOnly(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}
