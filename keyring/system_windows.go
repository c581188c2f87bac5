package keyring

import (
	"errors"

	gokeyring "github.com/zalando/go-keyring"
	"golang.org/x/sys/windows"
)

func newSystem(o systemOptions) Limited {
	return &native{systemOptions: o, calls: goKeyring{}, classify: classifyWindows}
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

// goKeyring makes the calls of native for real.
type goKeyring struct{}

func (goKeyring) Get(service, user string) (string, error) { return gokeyring.Get(service, user) }

func (goKeyring) Set(service, user, secret string) error {
	return gokeyring.Set(service, user, secret)
}

func (goKeyring) Delete(service, user string) error { return gokeyring.Delete(service, user) }
