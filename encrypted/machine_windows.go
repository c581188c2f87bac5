package encrypted

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// readMachine returns the MachineGuid that Windows makes when it is installed, and
// the computer's name: machines that are copies of one image, such as virtual
// desktops, have the same MachineGuid. Both are "" if one cannot be read.
func readMachine(context.Context) (id, host string) {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Cryptography`, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return "", ""
	}
	defer key.Close()
	id, _, err = key.GetStringValue("MachineGuid")
	if err != nil {
		return "", ""
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "", ""
	}
	return id, strings.ToLower(name)
}

// readUser returns the security identifier of the user who runs this process.
func readUser() string {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return ""
	}
	return user.User.Sid.String()
}
