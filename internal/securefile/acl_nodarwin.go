//go:build unix && !darwin

package securefile

import "os"

// removeACL does nothing: what a list grants is bounded by the mode.
func removeACL(*os.File, uint32) error { return nil }

func mkdir(dir string) error { return os.Mkdir(dir, 0o700) }
