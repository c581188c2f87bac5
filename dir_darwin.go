package tokenkeep

import "os/user"

// systemDir returns the user's home folder as the user database names it, or "".
func systemDir() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.HomeDir
}

// packagedDir returns "": there are no packages with folders of their own.
func packagedDir() string { return "" }

// packagedFolders returns none, for the same reason.
func packagedFolders() []string { return nil }
