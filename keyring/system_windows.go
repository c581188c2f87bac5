package keyring

import (
	"errors"
	"runtime"

	"golang.org/x/sys/windows"
)

func newSystem(o systemOptions) Limited {
	return &native{systemOptions: o, calls: goKeyring{}, goos: runtime.GOOS, classify: classifyWindows}
}

func classifyWindows(err error) error {
	switch {
	case errors.Is(err, windows.ERROR_NO_SUCH_LOGON_SESSION):
		return unavailable("Credential Manager has no place for this logon session",
			"Run the program in an interactive logon, not as a service or over a network logon.")
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return unavailable("Credential Manager denies access", "Ask the administrator whether a policy forbids stored credentials.")
	}
	return nil
}
