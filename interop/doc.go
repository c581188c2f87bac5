// Package interop uses the token caches of other programs of the same user: of
// Azure CLI, Azure Developer CLI and programs with the Azure SDK for Go, and of
// programs in Python, .NET, Node or Go that keep one with their msal-extensions. So
// one sign-in serves several programs.
//
// A program of yours in Go and another in Python, with one client id, both ways:
//
//	shared, err := interop.File(path, interop.Options{Clients: []string{clientID}, Write: true})
//	...
//	cache, err := persistence.New(shared)
//	...
//	client, err := public.New(clientID, public.WithCache(cache))
//
// Azure CLI's sign-in, without ever writing to Azure CLI's folder, beside this
// program's own, encrypted cache:
//
//	az, err := interop.AzureCLI(interop.Options{})
//	...
//	cache, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli", Follow: []persistence.Neighbour{az}})
//	...
//	client, err := public.New(interop.AzureCLIClientID, public.WithCache(cache),
//		public.WithClientCapabilities([]string{"CP1"}))
//
// # Whether to share
//
// A program whose sign-in is its own needs nothing of this package: tokenkeep.Open
// keeps it encrypted. A shared cache is as safe as the least careful of its programs:
//
//   - To read costs the other program nothing. A process that starts after the access
//     token has expired refreshes it for itself. What that brings is gone with the
//     process, unless it follows the cache; see Following.
//   - To read and write beside MSAL Python, beside MSAL.NET, or beside one process of
//     MSAL Node loses nothing, as long as nobody is killed; see Writing.
//   - Some pairs of other programs are not safe among themselves, and this package
//     does not make them so; see Pairs that are never safe.
//   - To write Azure CLI's cache is to act as Azure CLI; see Acting as Azure CLI.
//
// What is risked, in any case: every program of the user can read the tokens, and
// where the file is plain, so can everybody with a copy of the disk. A program that is
// killed at the wrong moment can empty the file for all. One program's bug signs the
// user out of all of them.
//
// # What is shared
//
// A [Store] shows the entries of the clients that its Options name, and nothing
// else. Tokens belong to a client id: the tokens of another client id are of no use
// here, and are neither seen nor changed. Put the client id of the other program
// into Options only if your program is meant to act as that client.
//
// With Write, entries of these clients are added, changed and removed in the other
// program's file. All else in it stays, byte for byte. An account that another
// client uses too stays in the file after a sign-out here, and is not seen here any
// more; Options.SignOut removes it.
//
// # Reading
//
// Without Write nothing is made or changed in the other program's folder, not even a
// lock file or a time. A read-only mount is enough. If such a Store is all that a Cache
// has, a token that a refresh brings stays in this program's memory, and the Cache
// logs that once. A refresh token of the other program is then sent from here. So do
// not read a cache of an authority that accepts each refresh token only once: a refresh
// here would sign the other program out. Microsoft Entra ID accepts it again.
//
// Other programs write in place, so a reader may see half a file. A Store waits
// for up to a second for the rest. If the file stays half, and the Store has read
// it before, it goes on with what it read; if not, it fails with ErrCorrupt.
//
// # Following
//
// A Store is a [persistence.Neighbour]: with the field Follow of tokenkeep.Config, or
// [persistence.WithFollow], a program keeps a cache of its own and is shown the
// other's beside it.
//
//   - What a refresh here brings is stored in the program's own cache, and survives a
//     restart. Nothing that the other program has is copied there.
//   - What a refresh over there brings is used here.
//   - A sign-out over there is one here too. It removes what refreshes here have
//     brought for that account. A sign-in that was made here, with another client id or
//     while the account was not shown, is the program's own and stays.
//   - A sign-out here hides the account until the user signs in again here. It
//     changes nothing over there.
//   - Only sign-ins at the hosts of Microsoft Entra ID's own clouds are shown. The
//     entries name the host. Those of AD FS, B2C and other providers are left out,
//     with a warning, and tokenkeep.Open fails if there is nothing else.
//
// A program of your own that follows nobody does not link this package.
//
// # Writing
//
// The other programs' lock is PATH.lockfile, a file that is there while somebody
// writes. A save takes it in a way that all of them understand, and holds it for about
// a millisecond: the new file is made and flushed before. A lock file that a dead
// process has left is removed: at once if it was one of this package, after a second
// if its process does not run any more, and after five seconds in any case, as MSAL
// Python does it. If a process has it locked with flock, a save waits for that process
// until the context ends.
//
// The file is replaced, not written in place, and its time is set by hand a little
// ahead, because other programs read it again only if its time is later than their
// last look. Its owner stays, its mode becomes 0600, and access control lists and
// hard links are lost.
//
// If a program is killed while it writes in place, the file is left empty or half.
// A Store that has read it before restores it with its next save, from memory, and
// logs that. What others stored in between is lost, with or without this package.
//
// # What other programs do
//
//   - MSAL.NET deletes a file that it cannot parse: a section that is null or no
//     object is enough, and so is a number for a string. So a file whose shape is in
//     doubt is never written to: Save fails instead. What is written has strings only.
//   - MSAL Python fails on a section that is null, in every call. A save writes an
//     empty section instead.
//   - MSAL Python's own sign-out takes the access tokens, the ID tokens and the
//     account of other clients with it, and leaves their refresh tokens.
//   - MSAL Node's unlock, which it also calls after it has only read, removes lock
//     files that others hold. A save notices that, looks whether it is still what the
//     file holds, and is tried again if not. A lock file that a killed Node has left
//     stops every Node until somebody removes it.
//   - MSAL Python without portalocker (an extra of its package) locks by the file's
//     existence alone, and fails if a killed process has left the file.
//   - A program that keeps a never-deleted lock file at PATH.lockfile makes MSAL
//     Python wait five seconds for each write, or fail.
//
// # Pairs that are never safe
//
// These lose entries of each other without any program of yours. Do not join them:
//
//   - MSAL.NET and MSAL Node: their locks do not exclude each other. One may read the
//     file while it is empty, just before the other writes it, and then all is lost.
//   - MSAL Node and MSAL Node, in two processes: each removes the other's lock.
//   - MSAL Python and MSAL Node: now and then one does not notice what the other has
//     written, and writes over it.
//   - microsoft-authentication-extensions-for-go, azidentity/cache or Azure Developer
//     CLI with any other: they write their whole memory, which is older than their own
//     network call, and so remove what others stored in between. The caches of
//     azidentity/cache and Azure Developer CLI are only read here.
//
// # Encrypted caches
//
// Other programs keep the key of an encrypted cache where every program of the user
// can get it: in the kernel's keyring ([AzureIdentity]), in the Secret Service, which
// then has the cache itself ([SecretService]), or in the user's Windows profile
// ([DataProtection]). What they store is read and, in the Secret Service only,
// written. When it cannot be opened:
//
//   - The key is gone, as after a restart: ErrKeyMissing. Another key is there:
//     ErrWrongKey. Sign in again with the other program.
//   - The keyring is locked: ErrKeyringLocked; nobody is asked. There is no keyring,
//     it does not answer, or this session cannot use it: ErrUnavailable.
//   - The file is half, and stays so: ErrCorrupt, or what was read before. DPAPI does
//     not tell a file that is half from one of another user: ErrWrongKey.
//   - The file or the item is missing or empty: ErrNotFound.
//
// # Acting as Azure CLI
//
// With Azure CLI's client id, a program is Azure CLI to the authority: its consent,
// its conditional access, its line in the audit log. Microsoft may change what that
// client is allowed at any time. Its access tokens are subject to continuous access
// evaluation: give MSAL the capability CP1 and handle claims challenges. Azure CLI's
// refresh token cannot be redeemed for another client id.
//
// A program that writes Azure CLI's entries acts in its name. So it must set both
// Options.Write and Options.WriteAsAzureCLI where the client id is Azure CLI's:
//
//   - A sign-out here signs az out too. After a sign-in here az has the account, but
//     lists no subscriptions of it: az keeps these in azureProfile.json, which az login
//     or your program must write.
//   - az fails on two accounts with one username ("Found multiple accounts"). There are
//     two if a user was deleted and made again, or also has a personal account with
//     that address. So a write that would add the second one fails with ErrUsername. A
//     sign-in then succeeds in memory only, or fails with persistence.WithStrict. Tell
//     the user to sign the other account out.
//
// # What is refused
//
//   - a path that leads to anything but a regular file;
//   - a file of another user, whose tokens are not this user's;
//   - writing in another user's folder, or in a folder that others can write;
//   - writing to a network file system, where the locks do not work;
//   - writing to a file that is mounted by itself into a container: share the folder.
//
// All of these are ErrUnavailable, with a remedy. A plaintext file of mode 0644, as
// old versions leave it, is read, and has mode 0600 after a write.
//
// # What has been tried with what
//
// On Linux, with the real programs: Debian's msal-extensions 1.0 and MSAL Python
// 1.21, the lock of msal-node-extensions 5.6.1, and Azure CLI 2.45, read and written.
// MSAL.NET's lock is a stand-in after its source. macOS: built, and its way to make
// files is tested on Linux, but not beside another program. Windows: the files that
// DPAPI encrypts are read under Wine, with stand-ins for the other programs; nothing
// can be written.
// Caches in the macOS Keychain cannot be used. The comment of each constructor says
// what it has been tried with.
package interop
