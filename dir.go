package tokenkeep

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/fallback"
)

// DefaultDir returns the folder of the caches whose Config has no Dir:
// "tokenkeep" in
//
//   - %LocalAppData% on Windows, which is not copied to other machines, where
//     the key would be missing; if that is unset or relative, in the folder that
//     Windows itself names,
//   - ~/Library/Application Support on macOS; if $HOME is unset, as for a launchd
//     daemon, the home folder is the one that the user database names,
//   - $XDG_DATA_HOME elsewhere, or ~/.local/share if that is unset or relative
//     (XDG Base Directory Specification). A service of systemd that has no home
//     folder, or only /, uses the first folder of $STATE_DIRECTORY.
//
// In a packaged program on Windows (MSIX), and in what that starts, it is
// ".tokenkeep" in the user's profile: such programs see a copy of AppData of their
// own, in which a lock excludes nobody else. So they do not share caches with other
// programs, unless both set Config.Dir to a folder outside of AppData.
//
// It fails with a [*persistence.Error] if the system names no such folder. It does
// no I/O beyond asking the system.
func DefaultDir() (string, error) {
	if dir := packagedDir(); dir != "" {
		return dir, nil
	}
	base, err := dataDir(runtime.GOOS, os.Getenv, systemDir)
	if err != nil {
		return "", openError("", err, "Set it to a folder that this user can write. A program can also set Config.Dir.")
	}
	return filepath.Join(base, "tokenkeep"), nil
}

// copiedFolders returns the folders of which this process sees a copy of its own.
// Tests replace it.
var copiedFolders = packagedFolders

// isBelow reports whether dir is one of the folders or lies in one. As on Windows,
// the case of letters does not count.
func isBelow(dir string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		rel, err := filepath.Rel(strings.ToLower(folder), strings.ToLower(dir))
		return err == nil && filepath.IsLocal(rel)
	})
}

func copiedWarning(dir string) fallback.Warning {
	return fallback.Warning{
		Location: dir,
		Message:  fmt.Sprintf("Other programs may not see the tokens in %s, and a lock there may not exclude them.", dir),
		Reason:   "This program runs in a Windows package, to which Windows shows a copy of AppData.",
		Remedy:   "The program's author can set Config.Dir to a folder outside of AppData, or leave it empty.",
	}
}

// dataDir returns the folder of programs' data by the environment. Where that does
// not say, system does: the folder on Windows, the home folder on macOS.
func dataDir(goos string, getenv func(string) string, system func() string) (string, error) {
	if goos == "windows" {
		if dir := getenv("LocalAppData"); filepath.IsAbs(dir) {
			return dir, nil
		}
		if dir := system(); filepath.IsAbs(dir) {
			return dir, nil
		}
		return "", errors.New("%LocalAppData% is not set to an absolute path")
	}
	if dir := getenv("XDG_DATA_HOME"); goos != "darwin" && filepath.IsAbs(dir) {
		return dir, nil
	}
	home := getenv("HOME")
	if home == "" && goos == "darwin" {
		home = system()
	}
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

// dirVariable tells the user which variable to set if the program leaves Config.Dir to
// the platform.
func dirVariable() string {
	switch runtime.GOOS {
	case "windows":
		return "Set LocalAppData to a folder that this user can write."
	case "darwin":
		return "Set HOME to a folder that this user can write."
	}
	return "Set XDG_DATA_HOME to a folder that this user can write."
}
