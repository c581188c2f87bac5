package tokenkeep

import (
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// systemDir returns the folder that Windows names for data that stay on this
// machine, or "".
func systemDir() string { return knownFolder(windows.FOLDERID_LocalAppData) }

// folderFunctions are what x/sys calls for the path of a known folder. It panics where
// one of them is missing, and small installations of Windows have no shell.
var folderFunctions = []*windows.LazyProc{
	windows.NewLazySystemDLL("shell32.dll").NewProc("SHGetKnownFolderPath"),
	windows.NewLazySystemDLL("ole32.dll").NewProc("CoTaskMemFree"),
}

// knownFolder returns the path of a folder that Windows knows, or "".
func knownFolder(id *windows.KNOWNFOLDERID) string {
	for _, f := range folderFunctions {
		if f.Find() != nil {
			return ""
		}
	}
	dir, err := windows.KnownFolderPath(id, 0)
	if err != nil {
		return ""
	}
	return dir
}

// packagedDir returns a folder outside of AppData if this process runs in a
// package, else "".
func packagedDir() string {
	if !isPackaged() {
		return ""
	}
	profile := knownFolder(windows.FOLDERID_Profile)
	if profile == "" {
		return ""
	}
	return filepath.Join(profile, ".tokenkeep")
}

// packagedFolders returns the folders of AppData if this process runs in a package:
// there Windows redirects what it writes.
func packagedFolders() (folders []string) {
	if !isPackaged() {
		return nil
	}
	for _, id := range []*windows.KNOWNFOLDERID{windows.FOLDERID_LocalAppData, windows.FOLDERID_LocalAppDataLow, windows.FOLDERID_RoamingAppData} {
		if dir := knownFolder(id); dir != "" {
			folders = append(folders, dir)
		}
	}
	return folders
}

var getCurrentPackageFullName = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetCurrentPackageFullName")

// isPackaged reports whether this process has the identity of a package. It asks
// for the name of the package with no room for it.
func isPackaged() bool {
	if getCurrentPackageFullName.Find() != nil {
		return false
	}
	var length uint32
	code, _, _ := getCurrentPackageFullName.Call(uintptr(unsafe.Pointer(&length)), 0)
	return windows.Errno(code) == windows.ERROR_INSUFFICIENT_BUFFER
}
