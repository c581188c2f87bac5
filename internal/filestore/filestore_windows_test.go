package filestore

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// The codes of Windows lead to the same advice as those of other systems.
func TestRemediesForTheCodesOfWindows(t *testing.T) {
	s := &Store{path: `C:\tokens\app.enc`}
	for code, advice := range map[error]string{
		windows.ERROR_DISK_FULL:           "Free some space",
		windows.ERROR_HANDLE_DISK_FULL:    "Free some space",
		windows.ERROR_DISK_QUOTA_EXCEEDED: "Free some space",
		windows.ERROR_WRITE_PROTECT:       "Use a folder that can be written",
		windows.ERROR_ACCESS_DENIED:       "Make sure that you can write the folder",
	} {
		err := s.wrap("save", &securefile.ReplaceError{Step: "write", Path: s.path, Stored: securefile.Old,
			Err: &fs.PathError{Op: "write", Path: s.path + ".tmp", Err: code}})
		require.Contains(t, persistence.Remedy(err), advice, "%v", code)
		require.Contains(t, persistence.Remedy(err), `C:\tokens`, "%v", code)
	}
}
