package keyring

// Kernel returns the keyring that the Linux kernel keeps in its memory for the
// calling user (persistent-keyring(7)). It is for servers, SSH sessions and
// containers, where nobody unlocks a desktop's keyring. It is a [Limited], does
// no I/O itself, asks nobody anything and waits for nothing.
//
// Nothing chooses it by itself. A program that wants it says so:
//
//	tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli", Keyring: keyring.Kernel()})
//
// What it protects: the items never touch a disk, unless the kernel's memory is
// swapped or dumped. Every process of the user can read them, from any session,
// and so can root. Other users cannot.
//
// What is gone, and when: all items at a reboot, and as soon as nobody has used
// the user's keyring for three days (any call starts the time anew; the kernel's
// setting is /proc/sys/kernel/keys/persistent_keyring_expiry, in seconds). The
// file that such a key was for can then not be read any more: its users sign in
// again. A kernel without persistent keyrings has the user's keyring instead
// (user-keyring(7)), which has no such limit, though old kernels drop it with
// the user's last process.
//
// An item takes 32,766 bytes, and all of a user's 20,000 unless root's or the
// administrator allows more: room for keys, hardly for tokens.
//
// Its errors are those of [System]: ErrUnavailable where the kernel or a filter
// refuses the calls, as Docker's does by default, and on other systems, where
// it is errors.ErrUnsupported, too; ErrTooLarge for an item beyond its size and
// for one beyond the quota. An item that was revoked or has expired is
// ErrNotFound.
//
// To see an item is, in a shell, "keyctl get_persistent @s", then
// "keyctl search @s user 'tokenkeep "SERVICE" "USER"'"; to remove it,
// "keyctl revoke" with the number that is printed.
func Kernel() Limited { return &system{newKernel()} }
