// Package keyring keeps tokens, or the keys of encrypted files, in the
// operating system's keyring: the Secret Service on Linux and the BSDs, the
// Keychain on macOS, Credential Manager on Windows.
//
// Most programs need none of it directly: tokenkeep.Open keeps the tokens in an
// encrypted file and only that file's key in the keyring, by a [KeySource].
// That is also the better way for large caches. [New] keeps the tokens
// themselves in the keyring, and [System] is the keyring as such. Package
// [github.com/tokenkeep/tokenkeep/keyring/keyringtest] has a keyring for tests.
//
// # What is told apart
//
// Every call ends with its context, and after ten seconds by itself (see
// [WithTimeout]). A keyring that is missing is persistence.ErrUnavailable, one
// that is there but locked is ErrKeyringLocked, and one that is open and does
// not have what was asked for is ErrNotFound. Only the first is a reason to keep
// data elsewhere. Nobody is asked anything unless [AllowPrompt] is given.
//
// On Linux and the BSDs the package finds the session bus by
// DBUS_SESSION_BUS_ADDRESS, else as "bus" in $XDG_RUNTIME_DIR or
// /run/user/<uid>, and never starts one. It speaks the Secret Service API with
// the items of zalando/go-keyring, so programs that use that library and ones
// that use this one see each other's. FreeBSD, NetBSD and OpenBSD are built, not
// run.
//
// macOS and Windows are reached through zalando/go-keyring. This package is
// built for them, and its mapping of errors is tested with calls played back; it
// has not been run on either. A call that the system does not answer leaves
// its goroutine, and on macOS a process of /usr/bin/security, behind until the
// system lets go of it. On macOS names must have no quote and no backslash.
//
// # Limits
//
// An item takes 2,560 bytes on Windows and about 3,000 on macOS, names
// included; [ItemLimit] tells. On Linux 64 MiB are refused. [New] splits what is
// larger over several items; a megabyte on Windows is 550 of them.
//
// # What is not promised
//
// Every keyring protects its items from other users and, while it is locked,
// from whoever has the disk. None keeps them from other programs of the same
// user: on Linux and Windows any of them can read an unlocked keyring; on macOS
// go-keyring's items are readable through /usr/bin/security. On Linux secrets
// cross the session bus, a socket of the user, as they are. Memory that held a
// secret is not erased.
//
// # To see and remove an item by hand
//
// An item has the service and user that the program chose; the key of an
// encrypted file has the cache's name as service and "tokenkeep key <id>" as
// user, where <id> is in the first lines of the file.
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
//
// Removing the key of an encrypted file makes the file unreadable for good.
// A program that is running may go on with what it has in memory.
//
// # Format
//
// The items that [New] writes, and the keys that [KeySource] writes, stay
// readable for every later version 1 of this module.
package keyring
