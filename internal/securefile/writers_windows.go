package securefile

import (
	"io/fs"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// OtherWriters returns the group of other users that can add, replace or delete
// files in the folder by its access list, or "". Only groups that all or most users
// belong to are looked for. Entries that deny are not weighed against those that
// allow.
func OtherWriters(dir string) (who string, err error) { return othersAt(dir, writeRights) }

// OtherReaders is [OtherWriters] for those who can read a file.
func OtherReaders(path string) (who string, err error) { return othersAt(path, readRights) }

func othersAt(path string, rights windows.ACCESS_MASK) (who string, err error) {
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return "", &fs.PathError{Op: "access list", Path: path, Err: err}
	}
	return othersWith(sd, rights)
}

// everybody are the groups, by security identifier.
var everybody = map[string]string{
	"S-1-1-0":      "Everyone",
	"S-1-5-2":      "everybody who is logged on over the network",
	"S-1-5-4":      "everybody who is logged on at this machine",
	"S-1-5-7":      "everybody without a password",
	"S-1-5-11":     "Authenticated Users",
	"S-1-5-32-545": "Users",
	"S-1-5-32-546": "Guests",
}

// writeRights are the rights with which a file in a folder can be put there, replaced
// or deleted, and readRights those with which a file can be read, or that lead to such
// a right.
const (
	leadsToAll  = windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_ALL
	writeRights = windows.FILE_WRITE_DATA | 0x40 /* FILE_DELETE_CHILD */ | windows.GENERIC_WRITE | leadsToAll
	readRights  = windows.FILE_READ_DATA | windows.GENERIC_READ | leadsToAll
)

func othersWith(sd *windows.SECURITY_DESCRIPTOR, rights windows.ACCESS_MASK) (who string, err error) {
	list, _, err := sd.DACL()
	if err != nil {
		if err == windows.ERROR_OBJECT_NOT_FOUND { // no list at all
			return everybody["S-1-1-0"], nil
		}
		return "", err
	}
	if list == nil { // a list that admits all
		return everybody["S-1-1-0"], nil
	}
	for i := range uint32(list.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(list, i, &entry); err != nil {
			return "", err
		}
		if entry.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || entry.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 || entry.Mask&rights == 0 {
			continue
		}
		id := (*windows.SID)(unsafe.Pointer(&entry.SidStart)).String()
		if name := everybody[id]; name != "" {
			return name, nil
		}
		if strings.HasPrefix(id, "S-1-5-21-") && strings.HasSuffix(id, "-513") {
			return "Domain Users", nil
		}
	}
	return "", nil
}
