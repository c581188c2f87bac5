// Package keyring keeps tokens, or the keys of encrypted files, in the
// operating system's keyring: the Secret Service on Linux and the BSDs, the
// Keychain on macOS, Credential Manager on Windows.
//
// Most programs need none of it directly: tokenkeep.Open keeps the tokens in an
// encrypted file and only that file's key in the keyring, by a [KeySource].
// That is also the better way for large caches. [New] keeps the tokens
// themselves in the keyring, and [System] is the keyring as such. [Kernel] is
// another one, for Linux servers and SSH sessions. Package
// [github.com/tokenkeep/tokenkeep/keyring/keyringtest] has a keyring for tests.
//
// # What is told apart
//
// Every call ends with its context, and after ten seconds by itself (see
// [WithTimeout]). A keyring that is missing is persistence.ErrUnavailable, one
// that is there but locked is ErrKeyringLocked, and one that is open and does
// not have what was asked for is ErrNotFound. Only the first is a reason to keep
// data elsewhere. Nobody is asked anything unless [AllowPrompt] is given, with
// one exception: an open KWallet lets a program in only by a prompt. By default
// that prompt asks nobody; where its user has set KWallet to ask for each
// program, it does, until the call ends.
//
// On Linux and the BSDs the package finds the session bus by
// DBUS_SESSION_BUS_ADDRESS, else as "bus" in $XDG_RUNTIME_DIR or
// /run/user/<uid>, and never starts one. It speaks the Secret Service API with
// the items of zalando/go-keyring, so programs that use that library and ones
// that use this one see each other's. FreeBSD, NetBSD and OpenBSD are built, not
// run.
//
// On macOS it runs /usr/bin/security, by whose standard input secrets go, and
// ends it when the call ends; what that program was showing on the screen then
// is macOS' to remove. Windows is reached through zalando/go-keyring; a call
// that Windows does not answer leaves its goroutine behind until it does. The
// items on both are go-keyring's. This package is built for both systems, and
// its side of each is tested with answers played back; it has not been run on
// either.
//
// # Linux without a desktop
//
// A server has no Secret Service, and an SSH session finds it locked. What there
// is instead:
//
//   - [Kernel], the kernel's keyring, for programs whose users can sign in again:
//     its items are gone after a reboot, and after three days without use.
//   - A passphrase (Config.Passphrase of package tokenkeep, package encrypted).
//   - gnome-keyring with a session bus of its own: dbus-run-session, then
//     gnome-keyring-daemon --unlock with the password as its input.
//
// # Limits
//
// An item takes 2,560 bytes on Windows and about 3,000 on macOS, names
// included; [ItemLimit] tells. On Linux more than 64 MiB are refused. [New] splits
// what is larger over several items; a megabyte on Windows is 550 of them. The
// kernel's keyring takes 32,766 bytes for an item and by default 20,000 for all.
//
// # What is not promised
//
// Every keyring protects its items from other users and, while it is locked,
// from whoever has the disk. None keeps them from other programs of the same
// user: on Linux and Windows any of them can read an unlocked keyring; on macOS
// the items are readable through /usr/bin/security. On Linux secrets cross the
// session bus, a socket of the user, as they are. Memory that held a secret is
// not erased.
//
// # To see and remove an item by hand
//
// An item has the service and user that the program chose. The key of an
// encrypted file that tokenkeep.Open made has "tokenkeep/" and the cache's name
// as service and "tokenkeep key <id>" as user, where <id> is in the first lines
// of the file.
//
//	Linux, BSD   see     secret-tool search service SERVICE username USER
//	             remove  secret-tool clear service SERVICE username USER
//	             or      Seahorse ("Passwords and Keys"), Login, "Password for 'USER' on 'SERVICE'"
//	macOS        see     security find-generic-password -s SERVICE -a USER
//	             remove  security delete-generic-password -s SERVICE -a USER
//	             or      Keychain Access, login, SERVICE
//	Windows      see     cmdkey /list:SERVICE:USER
//	             remove  cmdkey /delete:SERVICE:USER
//	             or      Control Panel, Credential Manager, Windows Credentials, Generic Credentials
//	kernel       see     keyctl get_persistent @s; keyctl search @s user 'tokenkeep "SERVICE" "USER"'
//	             remove  keyctl revoke with the number that search prints
//
// Removing the key of an encrypted file makes the file unreadable for good.
// A program that is running may go on with what it has in memory.
//
// # Format
//
// The items that [New] writes, and the keys that [KeySource] writes, stay
// readable for every later version 1 of this module.
package keyring
