// Package tokenkeep keeps a user signed in between a program's runs. It stores the
// token cache of an OAuth or OpenID Connect client as safely as the machine
// allows, and lets many processes share it without losing each other's tokens.
//
// # What to use first
//
// [Open] returns a cache for Microsoft's MSAL Go:
//
//	c, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli"})
//	if err != nil {
//		return err // says what does not work on this machine, and what helps
//	}
//	client, err := public.New(clientID, public.WithCache(c))
//
// Package tokensource keeps the tokens of any other OAuth provider in that cache,
// for golang.org/x/oauth2. The module azcredential has a credential for the Azure SDK
// for Go. Web apps, with one cache per account, use [persistence.NewPartitioned] and the
// stores of the module web.
//
// The methods of the Cache do the rest. [persistence.Cache.Entries] are small secrets of
// the program's own, such as a password, an API token or a registration.
// [persistence.Cache.Adopt] takes over what an earlier version or another library has
// stored. [persistence.Cache.SignOutAll] logs out all, [persistence.Cache.Exclusive]
// lets one process at a time refresh, and [persistence.Cache.Watch] tells an app when the
// user signs in or out elsewhere. [Rotate] gives the cache a new key, and [Remove] signs
// out while the key is not available.
//
// Config.Follow makes the sign-in of another program, such as Azure CLI, one of this
// program's too; see package interop.
//
// Tests set Config.Dir, and Config.Keyring to a keyring of package keyringtest, and so
// use neither the machine's keyring nor the user's files. Package entratest has an
// authority to sign in at.
//
// The packages below this one can be used on their own: persistence has the
// Load/Save interface and the shared Cache, encrypted and keyring have backends,
// fallback has the plaintext file that warns and the choice between backends.
//
// # What is stored, and where
//
// In order of preference, as far as it works here and the program permits it:
// an AES-256-GCM file with the program's own key, if it has one; the same with its
// key in the operating system's keyring; on Windows with a key that DPAPI encrypts for
// the user; with a passphrase; on Linux with its key in the kernel's keyring, until a
// restart or three days without use; a plaintext file, if the program permits it and
// there is no keyring. All are in [DefaultDir] or Config.Dir: NAME.enc or
// NAME.plaintext.json, and the lock files NAME.lock*. If NAME.enc is a symbolic link,
// the lock files are beside the file that it leads to. Config.Order changes the order,
// or leaves some of them out. Config.Store lets the end user choose among the rest.
// [ChoiceOf] tells what was chosen, who chose it and why nothing preferred works.
//
// # What Open does with what is stored
//
// It never downgrades. If encrypted tokens exist but their key is not available
// now (in an SSH session, for example), Open returns an error; it starts nothing
// beside them, and moves them to no other place by itself. A keyring that is locked,
// full or does not answer is no reason for plaintext.
//
// It upgrades, where plaintext is permitted: Config.AllowPlaintext is set, and
// neither Config.Order nor Config.Store leaves plaintext out. If it finds a
// plaintext file, and something safer works that lasts, it moves the tokens, reads them
// back, and only then removes the plaintext file. (The kernel's keyring does not last.)
// If there is an encrypted file already, Open only adds to it: entries under keys that
// the encrypted file does not have, of accounts that it has or of no account. No entry
// is replaced and no account comes back; what may not be added stays in the plaintext
// file. Where plaintext is not permitted, the file stays as it is, and [MovePlaintext]
// moves it if the user asks. Config.Warn is told in each case.
//
// A sign-in whose key was in the kernel's keyring ends with a restart. That is logged
// at the level Info, without a warning.
//
// A file that is certainly damaged, or whose key is certainly gone, is renamed to
// NAME.enc.damaged-TIME and kept, with a warning, and the user signs in again. The
// newest five such files stay. A mistyped passphrase, a locked keyring or a file
// of a newer version moves nothing.
//
// # Guarantees
//
// After a crash, a kill or a power cut, what is loaded is the last completed
// save or the one that was under way. Processes that each add a token lose
// none. Nothing secret is on disk in plain text unless AllowPlaintext was set.
// Every wait ends with its context, except a wait for a disk.
//
// # Not guaranteed
//
// Protection from other programs of the same user, from root, from swap and
// core dumps; erasure from flash memory; notice of an older copy that is put back;
// locks on network file systems. SECURITY.md has the whole list.
package tokenkeep
