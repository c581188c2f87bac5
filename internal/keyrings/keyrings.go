// Package keyrings makes the key sources of a cache for the keyrings of the operating
// system and of the Linux kernel, or for keyrings that stand for these.
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

// AsKernel returns k as the kernel's keyring, whatever its KeySource method returns.
func AsKernel(k keyring.Keyring) keyring.Keyring { return kernel{k} }

type kernel struct{ keyring.Keyring }

// KeySource returns "kernel", for keyring.Keys.
func (kernel) KeySource() string { return layout.Kernel }
