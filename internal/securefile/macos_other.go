//go:build !darwin

package securefile

// isEvicted reports false: files are where they are stored.
func isEvicted(string) bool { return false }

// keepPlain does nothing: plaintext is like every other file.
func (*temp) keepPlain(string) error { return nil }
