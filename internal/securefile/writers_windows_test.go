package securefile

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// A file with secrets in the clear that others can read is told by its access list.
// The last but one is what a file in a new folder below C:\ inherits.
func TestOtherReaders(t *testing.T) {
	for list, who := range map[string]string{
		"D:P(A;;FA;;;" + ownSID() + ")(A;;FA;;;SY)(A;;FA;;;BA)": "",
		"D:(A;ID;FA;;;BA)(A;ID;0x1200a9;;;BU)":                  "Users",
		"D:(A;;GR;;;WD)":                                        "Everyone",
		"D:(A;;WD;;;AU)":                                        "Authenticated Users", // who can admit themselves
		"D:(A;;0x2;;;WD)":                                       "",                    // they can write
		"D:(D;;FR;;;BU)":                                        "",
		"D:(A;OICIIO;FA;;;WD)":                                  "",
		"D:(A;ID;FA;;;BA)(A;ID;FA;;;SY)(A;ID;FR;;;BU)(A;ID;FA;;;AU)":   "Users",
		"D:P(A;;FA;;;S-1-5-21-1-2-3-1001)(A;;FR;;;S-1-5-21-1-2-3-513)": "Domain Users",
	} {
		sd, err := windows.SecurityDescriptorFromString(list)
		if env.Wine() && err != nil {
			t.Logf("Wine does not know %s", list)
			continue
		}
		require.NoError(t, err, list)
		got, err := othersWith(sd, readRights)
		require.NoError(t, err, list)
		require.Equal(t, who, got, list)
	}
	path := filepath.Join(t.TempDir(), "cache")
	_, err := Replace(t.Context(), path, []byte("data"))
	require.NoError(t, err)
	who, err := OtherReaders(path)
	require.NoError(t, err)
	if env.Wine() {
		return // it keeps no access lists
	}
	require.Empty(t, who)
	open, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;" + ownSID() + ")(A;;FR;;;BU)")
	require.NoError(t, err)
	list, _, err := open.DACL()
	require.NoError(t, err)
	require.NoError(t, windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, list, nil))
	who, err = OtherReaders(path)
	require.NoError(t, err)
	require.Equal(t, "Users", who, "control")
}

// A folder in which other users can replace files is told by its access list. The
// second one is what a new folder below C:\ inherits.
func TestOtherWriters(t *testing.T) {
	for list, who := range map[string]string{
		"D:P(A;OICI;FA;;;" + ownSID() + ")(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)":                                            "",
		"D:(A;OICIID;FA;;;BA)(A;OICIID;FA;;;SY)(A;OICIID;0x1200a9;;;BU)(A;ID;0x1301bf;;;AU)(A;OICIIOID;SDGXGWGR;;;AU)": "Authenticated Users",
		"D:(A;OICI;FA;;;WD)":              "Everyone",
		"D:(A;;FR;;;WD)(A;;FX;;;BU)":      "", // they can read
		"D:(A;OICIIO;FA;;;WD)":            "", // what is made in it, not the folder
		"D:(D;;FA;;;BU)":                  "",
		"D:(A;;DC;;;BU)":                  "Users", // to add files
		"D:(A;;0x40;;;BU)":                "Users",
		"D:(A;;WD;;;IU)":                  "everybody who is logged on at this machine",
		"D:(A;;FA;;;S-1-5-21-1-2-3-513)":  "Domain Users",
		"D:(A;;FA;;;S-1-5-21-1-2-3-1001)": "", // one user, whom somebody has admitted
		"D:P":                             "",
	} {
		sd, err := windows.SecurityDescriptorFromString(list)
		if env.Wine() && err != nil {
			t.Logf("Wine does not know %s", list)
			continue
		}
		require.NoError(t, err, list)
		got, err := othersWith(sd, writeRights)
		require.NoError(t, err, list)
		require.Equal(t, who, got, list)
	}
	for _, present := range []bool{true, false} { // a list that admits all, or none
		sd, err := windows.NewSecurityDescriptor()
		require.NoError(t, err)
		require.NoError(t, sd.SetDACL(nil, present, false))
		got, err := othersWith(sd, writeRights)
		require.NoError(t, err)
		require.Equal(t, "Everyone", got)
	}
	dir := t.TempDir()
	made := dir + `\made`
	require.NoError(t, MkdirAll(made))
	who, err := OtherWriters(made)
	require.NoError(t, err)
	if !env.Wine() { // it keeps no access lists
		require.Empty(t, who)
	}
	_, err = OtherWriters(dir + `\missing`)
	require.ErrorIs(t, err, windows.ERROR_FILE_NOT_FOUND)
}

// Only the user, the system and administrators count as the user's own.
func TestStrangers(t *testing.T) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	require.NoError(t, err)
	own := "D:P(A;;FA;;;" + user.User.Sid.String() + ")"
	for list, who := range map[string]string{
		own:                                  "",
		own + "(A;;FA;;;SY)(A;;FA;;;BA)":     "",
		own + "(A;;FA;;;S-1-5-21-1-2-3-512)": "", // Domain Admins
		own + "(A;;FA;;;S-1-15-2-1)(A;;FA;;;S-1-3-4)": "",
		own + "(A;;FR;;;S-1-5-21-1-2-3-1001)":         "S-1-5-21-1-2-3-1001",
		own + "(A;;FW;;;S-1-5-21-1-2-3-1001)":         "S-1-5-21-1-2-3-1001",
		own + "(A;;SD;;;S-1-5-21-1-2-3-1001)":         "S-1-5-21-1-2-3-1001",
		own + "(A;;WD;;;S-1-5-21-1-2-3-1001)":         "S-1-5-21-1-2-3-1001",
		own + "(A;;RC;;;S-1-5-21-1-2-3-1001)":         "", // they see who can
		own + "(A;OICIIO;FA;;;WD)":                    "",
		own + "(D;;FR;;;BU)":                          "",
		own + "(A;;FR;;;BU)":                          "S-1-5-32-545",
		own + "(A;ID;FR;;;S-1-5-80-1-2-3-4-5)":        "S-1-5-80-1-2-3-4-5", // a service
		own + `(XA;;FR;;;BU;(Member_of {SID(BA)}))`:   "S-1-5-32-545",
		"D:P": "",
	} {
		sd, err := windows.SecurityDescriptorFromString(list)
		if env.Wine() && err != nil {
			t.Logf("Wine does not know %s", list)
			continue
		}
		require.NoError(t, err, list)
		got, err := strangerIn(sd)
		require.NoError(t, err, list)
		require.Equal(t, who, got, list)
	}
	sd, err := windows.NewSecurityDescriptor()
	require.NoError(t, err)
	require.NoError(t, sd.SetDACL(nil, true, false))
	who, err := strangerIn(sd)
	require.NoError(t, err)
	require.Equal(t, everyone, who, "a volume without lists")
	require.ErrorIs(t, CheckPrivate(t.TempDir()+`\missing`), windows.ERROR_FILE_NOT_FOUND)
}

// Where no access list can be made, nothing is made either.
func TestPrivateFails(t *testing.T) {
	_, err := private("no identifier", "")
	require.Error(t, err)
	list, err := private(ownSID(), "OICI")
	require.NoError(t, err)
	require.NotNil(t, list)
	list, err = private("", "")
	require.NoError(t, err)
	require.Nil(t, list, "in a sandbox the folder's counts")
}
