package tokenkeep

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// DefaultDir returns the folder where [Open] keeps caches whose Config names
// none: "tokenkeep" in
//
//   - %LocalAppData% on Windows, which does not roam to other machines, where
//     the key would not be,
//   - ~/Library/Application Support on macOS,
//   - $XDG_DATA_HOME elsewhere, or ~/.local/share if that is unset or relative
//     (XDG Base Directory Specification).
//
// It fails if the environment does not tell.
func DefaultDir() (string, error) {
	base, err := dataDir(runtime.GOOS, os.Getenv)
	if err != nil {
		return "", openError("", err, "Set it, or give Config.Dir.")
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
	if !filepath.IsAbs(home) {
		return "", errors.New("$HOME is not set to an absolute path")
	}
	if goos == "darwin" {
		return filepath.Join(home, "Library", "Application Support"), nil
	}
	return filepath.Join(home, ".local", "share"), nil
}
