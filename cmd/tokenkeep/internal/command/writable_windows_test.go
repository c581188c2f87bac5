package command

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// A folder in which the access list lets the user make nothing is told, and nothing is
// made to find that out.
func TestWritable(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, writable(dir))
	require.NoError(t, writable(filepath.Join(dir, "a", "b")))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
	if env.Wine() {
		return // it keeps no list that denies
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	require.NoError(t, err)
	give := func(rights string) {
		sd, err := windows.SecurityDescriptorFromString("D:P(A;OICI;" + rights + ";;;" + user.User.Sid.String() + ")")
		require.NoError(t, err)
		list, _, err := sd.DACL()
		require.NoError(t, err)
		require.NoError(t, windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil))
	}
	give("0x1200a9") // to read
	t.Cleanup(func() { give("FA") })
	for _, path := range []string{dir, filepath.Join(dir, "a")} {
		require.ErrorIs(t, writable(path), fs.ErrPermission)
		require.ErrorIs(t, writable(path), windows.ERROR_ACCESS_DENIED)
	}
}
