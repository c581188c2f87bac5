//go:build unix && !linux && !darwin

package securefile

func renameNew(from, to string) error { return renameIfAbsent(from, to) }
