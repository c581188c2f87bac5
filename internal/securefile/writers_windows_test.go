package securefile

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

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
		got, err := writersOf(sd)
		require.NoError(t, err, list)
		require.Equal(t, who, got, list)
	}
	for _, present := range []bool{true, false} { // a list that admits all, or none
		sd, err := windows.NewSecurityDescriptor()
		require.NoError(t, err)
		require.NoError(t, sd.SetDACL(nil, present, false))
		got, err := writersOf(sd)
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
