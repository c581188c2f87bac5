package keyring

import (
	"errors"

	gokeyring "github.com/zalando/go-keyring"
	"golang.org/x/sys/windows"
)

func newSystem(s settings) Limited {
	return &credentialManager{settings: s, calls: goKeyring{}, classify: classifyWindows}
}

func classifyWindows(err error) error {
	switch {
	case errors.Is(err, windows.ERROR_NO_SUCH_LOGON_SESSION):
		return newTrouble(Denied, "Credential Manager is not available in this logon session",
			"Run the program in an interactive logon, not as a service or over a network logon.")
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return newTrouble(Denied, "Credential Manager denies access", "Ask the administrator whether a policy forbids stored credentials.")
	}
	return nil
}

// goKeyring calls go-keyring.
type goKeyring struct{}

func (goKeyring) Get(service, user string) (string, error) { return gokeyring.Get(service, user) }

func (goKeyring) Set(service, user, secret string) error {
	return gokeyring.Set(service, user, secret)
}

func (goKeyring) Delete(service, user string) error { return gokeyring.Delete(service, user) }
