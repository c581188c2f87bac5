// Package keyring keeps tokens, or the keys of encrypted files, in the
// operating system's keyring: the Secret Service on Linux and the BSDs, the
// Keychain on macOS, Credential Manager on Windows.
//
// Most programs do not use it directly: tokenkeep.Open keeps the tokens in an
// encrypted file and only that file's key in the keyring, with [Keys]. That is
// also better for large caches. [New] keeps the tokens themselves in the
// keyring. [System] is the operating system's keyring; [Kernel] is another one,
// for Linux servers and SSH sessions. Package
// [github.com/tokenkeep/tokenkeep/keyring/keyringtest] has a keyring for tests.
//
// # Errors and waits
//
// Every call ends with its context, and after ten seconds at the latest, on macOS
// after a minute (see [WithTimeout]). The error is persistence.ErrUnavailable if the
// keyring is missing, ErrKeyringLocked if it is locked, and ErrNotFound if it is open
// and does not have the item. In the first two cases a program may store something
// encrypted elsewhere. It may store plaintext only if the keyring does not exist:
// [SituationOf] is then [Unsupported], [NoBus] or [NoService]. The error of a keyring
// that does not answer is ErrUnavailable with the situation [NoAnswer], and is also
// context.DeadlineExceeded.
//
// Nobody is asked anything unless [WithPrompt] is given, with one exception:
// KWallet gives a program access to an open wallet only by a prompt. By default
// that prompt asks nobody; if its user has configured KWallet to ask for each
// program, it is shown until the call ends.
//
// On Linux and the BSDs the package finds the session bus by
// DBUS_SESSION_BUS_ADDRESS, else as "bus" in $XDG_RUNTIME_DIR or
// /run/user/<uid>, and never starts one. Before it sends anything, it checks that
// the bus is run by the program's own user or by root; else the call fails with
// [ForeignBus]. It speaks the Secret Service API with the items of
// zalando/go-keyring, so programs that use that library and programs that use
// this one see each other's items. FreeBSD, NetBSD and OpenBSD are built, not
// run. On NetBSD and OpenBSD the user of the bus cannot be checked yet, so every
// call fails there.
//
// On macOS it runs /usr/bin/security, gives it secrets by its standard input, and
// ends it when the call ends; macOS removes what the program was showing on the
// screen. A question that nobody answered in time is ErrKeyringLocked. What
// /usr/bin/security does not find counts as missing only in a session that
// searches its default keychain, if that is a file that exists and not the System
// keychain; else the call fails with [NoSession]. So root's own daemons cannot use
// the Keychain. The default keychain must be unlocked too: security also says "not
// found" of what is in a locked keychain that it may not ask for. macOS may then ask
// for the password, and the call fails with [Locked] or [Declined] if nobody gives it.
//
// Windows is used through zalando/go-keyring; a call that Windows does not answer
// leaves its goroutine behind until it does. In a logon session whose credentials do
// not outlive it (CredGetSessionTypes), a call that would store something or that
// finds nothing fails with [NoSession].
//
// The items on both are go-keyring's. This package is built for both systems, and
// its side of each is tested with recorded answers; it has not been run on macOS or
// Windows.
//
// # Linux without a desktop
//
// A server has no Secret Service, and an SSH session finds it locked. The
// alternatives are:
//
//   - A key of the program's own or a passphrase (Config.Key and Config.Passphrase of
//     package tokenkeep, package encrypted).
//   - [Kernel], the kernel's keyring, for programs whose users can sign in again: its
//     items are gone after a reboot, and after three days without use. tokenkeep.Open
//     uses it by itself where nothing else works.
//   - gnome-keyring with a session bus of its own: dbus-run-session, then
//     gnome-keyring-daemon --unlock with the password as its input.
//
// # Limits
//
// An item takes 2,560 bytes on Windows and about 3,000 on macOS, names included;
// the ItemLimit method of [Limited] returns the exact number. On Linux an item
// takes at most 64 MiB. [New] splits larger data over several items; a megabyte
// on Windows needs 550 of them, and on macOS 350, each a run of /usr/bin/security.
// The kernel's keyring takes 32,766 bytes for an item and by default 20,000 for all.
//
// # What is not promised
//
// A Windows service that impersonates a user asks for its own items, not for that
// user's: calls run on another thread. On macOS a key that is not found counts as
// missing only in a session that searches the login keychain, and if every keychain
// that it searches can be opened. On Linux and the BSDs it does if it was stored over
// the same session bus, every collection is open, and the keyring is not KeePassXC,
// which shows only the databases that are open. None of this can be seen of a keyring
// program that was started again with another home folder on the same bus.
//
// Every keyring protects its items from other users and, while it is locked, from
// anybody who has the disk. None protects them from other programs of the same
// user: on Linux and Windows every such program can read an unlocked keyring; on
// macOS it can read the items through /usr/bin/security. On Linux secrets are
// sent unencrypted over the session bus, which is a socket of the user. Memory
// that held a secret is not erased.
//
// # See and remove an item by hand
//
// An item has the service and user that the program chose. The key of an
// encrypted file that tokenkeep.Open made has "tokenkeep/" and the cache's name
// as its service and "tokenkeep key <id>" as its user, where <id> is in the first
// lines of the file.
//
//	Linux, BSD   see     secret-tool search service SERVICE username USER
//	             remove  secret-tool clear service SERVICE username USER
//	             or      Seahorse ("Passwords and Keys"), Login, "Password for 'USER' on 'SERVICE'"
//	macOS        see     security find-generic-password -s SERVICE -a USER
//	             remove  security delete-generic-password -s SERVICE -a USER
//	             or      Keychain Access, login, SERVICE
//	Windows      see     cmdkey "/list:SERVICE:USER"
//	             remove  cmdkey "/delete:SERVICE:USER"
//	             or      Control Panel, Credential Manager, Windows Credentials, Generic Credentials
//	kernel       see     keyctl get_persistent @s; keyctl search @s user 'tokenkeep "SERVICE" "USER"'
//	             remove  keyctl revoke with the number that search prints
//
// If the key of an encrypted file is removed, the file can never be read again.
// A running program may continue with what it has in memory.
//
// # Format
//
// Every later version 1 of this module can read the items that [New] writes and
// the keys that [Keys] writes.
package keyring
