package tokenkeep

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// DefaultDir returns the folder of the caches whose Config has no Dir:
// "tokenkeep" in
//
//   - %LocalAppData% on Windows, which is not copied to other machines, where
//     the key would be missing,
//   - ~/Library/Application Support on macOS,
//   - $XDG_DATA_HOME elsewhere, or ~/.local/share if that is unset or relative
//     (XDG Base Directory Specification). A service of systemd that has no home
//     folder, or only /, uses the first folder of $STATE_DIRECTORY.
//
// It fails with a [*persistence.Error] if the environment variable that it needs
// is not set. It makes nothing.
func DefaultDir() (string, error) {
	base, err := dataDir(runtime.GOOS, os.Getenv)
	if err != nil {
		return "", openError("", err, "Set it to a folder that this user can write. A program can also set Config.Dir.")
	}
	return filepath.Join(base, "tokenkeep"), nil
}

func dataDir(goos string, getenv func(string) string) (string, error) {
	if goos == "windows" {
		if dir := getenv("LocalAppData"); dir != "" {
			return dir, nil
		}
		return "", errors.New("%LocalAppData% is not set")
	}
	if dir := getenv("XDG_DATA_HOME"); goos != "darwin" && filepath.IsAbs(dir) {
		return dir, nil
	}
	home := getenv("HOME")
	if state := firstPath(getenv("STATE_DIRECTORY")); goos != "darwin" && filepath.IsAbs(state) && !isHome(home) {
		return state, nil
	}
	if !filepath.IsAbs(home) {
		if goos == "darwin" {
			return "", errors.New("$HOME is not set to an absolute path")
		}
		return "", errors.New("neither $XDG_DATA_HOME nor $HOME is set to an absolute path")
	}
	if goos == "darwin" {
		return filepath.Join(home, "Library", "Application Support"), nil
	}
	return filepath.Join(home, ".local", "share"), nil
}

// firstPath returns the first of the paths that systemd separates by colons.
func firstPath(list string) string {
	first, _, _ := strings.Cut(list, ":")
	return first
}

// isHome reports whether dir is a home folder. A user without one has a home that
// is not there, or /.
func isHome(dir string) bool {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return false
	}
	fi, err := os.Stat(dir)
	return err == nil && fi.IsDir()
}

// dirVariable says to the user what can be set instead of Config.Dir, where the
// program leaves that to the platform.
func dirVariable() string {
	switch runtime.GOOS {
	case "windows":
		return "Set LocalAppData to a folder that this user can write."
	case "darwin":
		return "Set HOME to a folder that this user can write."
	}
	return "Set XDG_DATA_HOME to a folder that this user can write."
}
