//go:build !linux

package neighbour

// Mounted reports false: this system mounts no single files.
func Mounted(string) bool { return false }
