package encrypted

import "golang.org/x/sys/unix"

// readOnly reports whether path is on a file system, or reached through a mount,
// that is read-only. To ask for the right to write is not enough: whoever lacks it
// anyway does not learn that nobody has it.
func readOnly(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}
