package securefile

import (
	"cmp"
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
	ids, err := admitted(sd, rights)
	for _, id := range ids {
		if who := groupName(id); who != "" {
			return who, err
		}
	}
	return "", err
}

// groupName returns the name of a group that all or most users belong to, or "".
func groupName(id string) string {
	if strings.HasPrefix(id, "S-1-5-21-") && strings.HasSuffix(id, "-513") {
		return "Domain Users"
	}
	return everybody[id]
}

// everyone is the security identifier of Everyone.
const everyone = "S-1-1-0"

// admitted returns the security identifiers to which the access list gives one of the
// rights.
func admitted(sd *windows.SECURITY_DESCRIPTOR, rights windows.ACCESS_MASK) (ids []string, err error) {
	list, _, err := sd.DACL()
	if err != nil {
		if err == windows.ERROR_OBJECT_NOT_FOUND { // no list at all
			return []string{everyone}, nil
		}
		return nil, err
	}
	if list == nil { // a list that admits all
		return []string{everyone}, nil
	}
	for i := range uint32(list.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(list, i, &entry); err != nil {
			return nil, err
		}
		admits := entry.Header.AceType == windows.ACCESS_ALLOWED_ACE_TYPE || entry.Header.AceType == allowedOnCondition
		if !admits || entry.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 || entry.Mask&rights == 0 {
			continue
		}
		ids = append(ids, (*windows.SID)(unsafe.Pointer(&entry.SidStart)).String())
	}
	return ids, nil
}

// allowedOnCondition is ACCESS_ALLOWED_CALLBACK_ACE_TYPE. Its entries begin like those
// that admit without a condition.
const allowedOnCondition = 0x9

// CheckPrivate returns an [Error] unless, by the file's access list, only the user, the
// system and administrators can read or change it. Entries that deny are not weighed
// against those that allow. The owner does not count: the person who made the
// file knows what is in it.
func CheckPrivate(path string) error {
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return &fs.PathError{Op: "access list", Path: path, Err: err}
	}
	stranger, err := strangerIn(sd)
	if err != nil {
		return &fs.PathError{Op: "access list", Path: path, Err: err}
	}
	if stranger == "" {
		return nil
	}
	return &Error{Path: path, Reason: "can be read or changed by " + cmp.Or(groupName(stranger), stranger) + ", by its access list", Err: fs.ErrPermission,
		Advice: `Close it to others: cmd /c icacls "` + path + `" /inheritance:r /remove:g "*` + stranger + `" /grant:r "%USERNAME%:F" "*S-1-5-18:F" "*S-1-5-32-544:F"`}
}

// strangerIn returns a security identifier of somebody else who may read or change the
// file by its access list, or "".
func strangerIn(sd *windows.SECURITY_DESCRIPTOR) (string, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", err
	}
	ids, err := admitted(sd, readRights|windows.FILE_WRITE_DATA|windows.FILE_APPEND_DATA|windows.GENERIC_WRITE|windows.DELETE)
	for _, id := range ids {
		if id != user.User.Sid.String() && !isAdministrator(id) {
			return id, nil
		}
	}
	return "", err
}

// isAdministrator reports whether an identifier is that of the system or of
// administrators, who can read every file, or admits nobody by itself.
func isAdministrator(id string) bool {
	switch id {
	case "S-1-5-18", "S-1-5-32-544",
		"S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464", // TrustedInstaller, a part of the system
		"S-1-3-4": // the owner
		return true
	}
	return strings.HasPrefix(id, "S-1-15-") || // packages: the user's own programs, and only with an entry for the user
		strings.HasPrefix(id, "S-1-5-21-") && strings.HasSuffix(id, "-512") // Domain Admins
}
