//go:build !windows

package securefile

// OtherWriters finds nobody: [CheckDir] says it.
func OtherWriters(string) (string, error) { return "", nil }

// CheckPrivate returns nil: [Read] looks at modes.
func CheckPrivate(string) error { return nil }

// OtherReaders finds nobody: modes say it.
func OtherReaders(string) (string, error) { return "", nil }
