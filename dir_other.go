//go:build !windows && !darwin

package tokenkeep

// systemDir returns "": only the environment says it.
func systemDir() string { return "" }

// packagedDir returns "": there are no packages with folders of their own.
func packagedDir() string { return "" }

// packagedFolders returns none, for the same reason.
func packagedFolders() []string { return nil }
