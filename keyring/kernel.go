package keyring

import "github.com/tokenkeep/tokenkeep/internal/layout"

// Kernel returns the keyring that the Linux kernel keeps in its memory for the
// calling user (persistent-keyring(7)). It is for servers, SSH sessions and
// containers, where nobody unlocks a desktop's keyring. It is a [Limited] and, on
// Linux, a [Lister]. Its calls ask nobody anything and wait for nothing.
//
// tokenkeep.Open uses it by itself where nothing that lasts works. Config.Order or
// Config.Store name it "kernel".
//
// The items are only in memory, never on a disk, unless the kernel's memory is
// swapped or dumped. Every process of the user in the same user namespace can read
// them, from any session and also from a container that has no user namespace of its
// own; so can root. Other users cannot.
//
// All items are gone after a reboot, and when nobody has used the user's keyring
// for three days. Every call restarts that time; it is set in seconds in
// /proc/sys/kernel/keys/persistent_keyring_expiry. A file whose key is gone can
// no longer be read, and its user must sign in again. On a kernel without
// persistent keyrings the user keyring (user-keyring(7)) is used instead. It does
// not expire, but old kernels remove it when the user's last process ends.
//
// An item takes 32,766 bytes. All items of a user together take 20,000 bytes,
// unless the user is root or the administrator has raised the quota: enough for
// keys, not for large token caches.
//
// Its errors are those of [System]: ErrUnavailable if the kernel or a filter
// refuses the calls, as Docker's does by default, and on other systems, where
// it is also errors.ErrUnsupported; ErrTooLarge for an item beyond its limit or
// beyond the quota. For an item that was revoked or has expired it is
// ErrNotFound.
//
// In a shell, "keyctl get_persistent @s" and then
// "keyctl search @s user 'tokenkeep "SERVICE" "USER"'" show an item;
// "keyctl revoke" with the number that search prints removes it.
//
// The key of an encrypted file has the source word "kernel" (see [Keys]), and the
// file's header also says for which boot and in which user namespace it was
// stored: each user namespace has keyrings of its own.
func Kernel() Limited {
	k := newKernel()
	if lister, ok := k.(Lister); ok {
		return &kernelLister{kernelKeyring{system{k}}, listing{lister}}
	}
	return &kernelKeyring{system{k}}
}

// kernelKeyring is a system that names the kernel as the source of its keys.
type kernelKeyring struct{ system }

// kernelLister is a kernelKeyring that is a Lister.
type kernelLister struct {
	kernelKeyring
	listing
}

// KeySource returns "kernel"; see [Keys].
func (*kernelKeyring) KeySource() string { return layout.Kernel }
