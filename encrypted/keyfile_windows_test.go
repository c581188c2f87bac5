package encrypted

import (
	"encoding/base64"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// keyFileWith makes a key file with an access list that admits the user, and those of
// list.
func keyFileWith(t *testing.T, path, list string) {
	t.Helper()
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	require.NoError(t, err)
	sd, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;" + user.User.Sid.String() + ")" + list)
	require.NoError(t, err)
	name, err := windows.UTF16PtrFromString(path)
	require.NoError(t, err)
	attributes := &windows.SecurityAttributes{SecurityDescriptor: sd}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE, 0, attributes, windows.CREATE_ALWAYS, windows.FILE_ATTRIBUTE_NORMAL, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(h), path)
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(randomKey()))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	if list != "" && !strings.Contains(list, "SY") && env.Wine() {
		// The umask has closed it. Wine opens to everybody what gets a list later.
		dacl, _, err := sd.DACL()
		require.NoError(t, err)
		require.NoError(t, windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, dacl, nil))
	}
}

// A key file that others can read or change is refused, and the remedy closes it. Wine
// keeps of a list only what a mode can say.
func TestKeyFileThatOthersCanAccess(t *testing.T) {
	const users, somebody = "(A;;FR;;;BU)", "(A;;FR;;;S-1-5-21-1-2-3-1001)"
	for name, c := range map[string]struct {
		list    string
		closed  bool
		wine    bool // whether Wine keeps it
		adviser string
	}{
		"the user's alone":                 {"", true, true, ""},
		"the system's and administrators'": {"(A;;FA;;;SY)(A;;FA;;;BA)", true, true, ""},
		"everybody can read it":            {"(A;;FR;;;WD)", false, true, "S-1-1-0"},
		"users of the machine can":         {users, false, false, "S-1-5-32-545"},
		"somebody else can":                {somebody, false, false, "S-1-5-21-1-2-3-1001"},
		"everybody can write it":           {"(A;;FW;;;WD)", false, true, "S-1-1-0"},
	} {
		t.Run(name, func(t *testing.T) {
			if env.Wine() && !c.wine {
				t.Log("Wine does not keep such a list")
				return
			}
			path := filepath.Join(t.TempDir(), "key")
			keyFileWith(t, path, c.list)
			check := func() error { return newFile(t, tempPath(t), KeyFile(path)).Check(ctx) }
			err := check()
			if c.closed {
				require.NoError(t, err, "control")
				return
			}
			require.ErrorIs(t, err, persistence.ErrUnavailable)
			require.ErrorIs(t, err, fs.ErrPermission)
			require.ErrorContains(t, err, "by its access list")
			remedy := persistence.Remedy(err)
			require.Contains(t, remedy, `cmd /c icacls "`+path+`"`)
			require.Contains(t, remedy, c.adviser)
			if env.Wine() { // it has no icacls
				require.NoError(t, os.Remove(path))
				keyFileWith(t, path, "")
			} else {
				_, command, found := strings.Cut(remedy, "Close it to others: ")
				require.True(t, found)
				out, err := exec.Command("powershell", "-NoProfile", "-Command", command).CombinedOutput()
				require.NoError(t, err, "%s", out)
			}
			require.NoError(t, check(), "the remedy helps")
		})
	}
}
