//go:build !darwin

package securefile

import "os"

// isEvicted reports false: files are where they are stored.
func isEvicted(string) bool { return false }

// Flush flushes what was written to the open file, or what has changed in the folder,
// to the disk, as far as the file system can.
func Flush(f *os.File) error { return f.Sync() }

// keepPlain does nothing: plaintext is like every other file.
func (*temp) keepPlain(string) error { return nil }
