//go:build darwin || windows

package keyring

import gokeyring "github.com/zalando/go-keyring"

// goKeyring makes the calls of native for real.
type goKeyring struct{}

func (goKeyring) Get(service, user string) (string, error) { return gokeyring.Get(service, user) }

func (goKeyring) Set(service, user, secret string) error {
	return gokeyring.Set(service, user, secret)
}

func (goKeyring) Delete(service, user string) error { return gokeyring.Delete(service, user) }
