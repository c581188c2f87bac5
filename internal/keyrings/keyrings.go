// Package keyrings has the sources of a cache's keys that are kept in keyrings: the
// operating system's and the Linux kernel's, or what stands for them.
package keyrings

import (
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/keyring"
)

// Keys returns the keys that k keeps for the cache of that name.
func Keys(k keyring.Keyring, cache string) *keyring.Keys {
	return keyring.NewKeys(k, layout.KeyringService(cache))
}

// IsKernel reports whether k is the Linux kernel's keyring, or stands for it.
func IsKernel(k keyring.Keyring) bool {
	return k != nil && keyring.NewKeys(k, "").Source() == layout.Kernel
}

// IsSystem reports whether k is the operating system's own, as keyring.System returns it.
func IsSystem(k keyring.Keyring) bool {
	_, marked := k.(interface{ OperatingSystem() })
	return marked && !IsKernel(k)
}

// AsKernel returns k as the kernel's keyring, whatever it says that it is.
func AsKernel(k keyring.Keyring) keyring.Keyring { return kernel{k} }

type kernel struct{ keyring.Keyring }

// KeySource makes it the kernel's for keyring.Keys.
func (kernel) KeySource() string { return layout.Kernel }
