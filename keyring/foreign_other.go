//go:build !linux && !freebsd && !netbsd && !openbsd

package keyring

import (
	"context"
	"runtime"
)

func (ForeignItem) get(context.Context, settings) ([]byte, error) { return nil, noSecretService() }
func (ForeignItem) set(context.Context, settings, []byte) error   { return noSecretService() }

func noSecretService() error {
	return unsupported("there is no Secret Service on " + runtime.GOOS)
}
