// Package tokenkeep keeps a program's sign-in between its runs. It stores the
// token cache of an OAuth or OpenID Connect client as safely as the machine
// allows, and lets many processes share it without losing each other's tokens.
//
// # What to use first
//
// [Open] returns a cache that goes straight into Microsoft's MSAL Go:
//
//	c, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "contoso-cli"})
//	if err != nil {
//		return err // says what does not work on this machine, and what would help
//	}
//	client, err := public.New(clientID, public.WithCache(c))
//
// The Cache's Watch method tells an app that the user signed in or out elsewhere.
//
// Package tokensource keeps the tokens of any other OAuth provider in that cache,
// for golang.org/x/oauth2. Web apps, with one cache per account, use
// persistence.NewPartitioned and the stores of the module web.
//
// The packages below it can be used alone: persistence has the Load/Save
// interface and the shared Cache, encrypted and keyring have backends,
// fallback the plaintext file that warns and the choice between backends.
//
// # What is kept, and where
//
// In order of preference, as far as it works here and the program permits it:
// an AES-256-GCM file whose key lies in the operating system's keyring; on
// Windows the same with a key that DPAPI encrypts for the user; the same with a
// passphrase; a plaintext file. All lie in [DefaultDir] or Config.Dir: NAME.enc
// or NAME.plaintext.json, and the lock files NAME.lock*. Config.Order changes the
// order, or leaves some of them out; Config.Store lets the end user choose among
// the rest; [ChoiceOf] tells what it came to, who chose it and why nothing
// preferred was to be had.
//
// # What Open does with what is stored
//
// It never trades down: where an encrypted file is stored whose key cannot be
// had now (in an SSH session, say), it fails and says so, and starts nothing
// less safe beside it. It trades up by itself: where a plaintext file is found
// and something safer works, the data is moved, read back, and only then
// removed. A file that is certainly damaged, or whose key is certainly gone, is
// renamed to NAME.enc.damaged-TIME and kept, with a warning that says so, and
// the user signs in again; the newest five such files stay. A mistyped
// passphrase, a locked keyring or a file of a newer version moves nothing.
//
// # Guarantees
//
// After a crash, a kill or a power cut, what is loaded is the last completed
// save or the one that was under way. Processes that each add a token lose
// none. Nothing secret is on disk in plain text unless AllowPlaintext was set.
// Every wait ends with its context, but for a disk's.
//
// # Not guaranteed
//
// Protection from other programs of the same user, from root, from swap and
// core dumps; erasure from flash memory; that an older copy put back is noticed;
// locks on network file systems. SECURITY.md has the whole list.
package tokenkeep
