package tokenkeep

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// DefaultDir returns the folder of the caches whose Config has no Dir:
// "tokenkeep" in
//
//   - %LocalAppData% on Windows, which is not copied to other machines, where
//     the key would be missing,
//   - ~/Library/Application Support on macOS,
//   - $XDG_DATA_HOME elsewhere, or ~/.local/share if that is unset or relative
//     (XDG Base Directory Specification).
//
// It fails with a [*persistence.Error] if the environment variable that it needs
// is not set. It does no I/O.
func DefaultDir() (string, error) {
	base, err := dataDir(runtime.GOOS, os.Getenv)
	if err != nil {
		return "", openError("", err, "Set it, or set Config.Dir.")
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
