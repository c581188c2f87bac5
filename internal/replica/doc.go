// Package replica says what is known of one MSAL client's memory: which stored
// cache it holds, what of it could not be stored yet, and which accounts were
// signed out under it. It is pure: no locks, no I/O, no clock. Its caller calls
// it for one memory at a time.
//
// # The calls of MSAL
//
// MSAL Go tells its cache little: when it reads (Replace, R below) and when it has
// written (Export, E), with a hint. H is a user's home account id, A the key of
// an application's own tokens. Read in the source of MSAL Go 1.10.1:
//
//	call                                              R and E           MSAL's lock
//	public Accounts                                   R("")             read
//	public interactive, device code, auth code        R("") E("")       write
//	RemoveAccount, public or confidential             R("") E("")       write
//	silent, answered from memory, or no token         R(H)              read
//	silent, refreshed                                 R(H) … R(H) E(H)  read … write
//	confidential auth code, user name and password    R(H) E(H)         write
//	confidential Account                              R(H)              read
//	by credential, first; again                       R(A) … R(A) E(A); R(A)
//
// The write lock spans the Replace, MSAL's change of its memory and the Export.
// So the call right before an Export is that Export's own Replace. Between the two
// parts of a refresh anything can happen, in this memory and in the store. All
// calls of one API call get the same context.
//
// # Refresh or sign-in
//
// A sign-out is undone if the answer to a refresh that was asked for before it is
// stored after it. Nothing in the answer tells a refresh from a sign-in. This
// does:
//
//   - A public client hints its refreshes and does not hint its sign-ins. It is
//     known by an unhinted Replace with no unhinted Export right after it, and by
//     an unhinted Export that brings a new account.
//   - A confidential client hints both. Its sign-in begins with the Export's own
//     Replace; a refresh has read before. So the context tells: an Export whose
//     context has read nothing before is a sign-in's. Calls that share a context,
//     or whose context has no identity (context.Background), are as one call.
//
// # The states of an account
//
// An account is a home account id in one cloud. To a memory it is
//
//	unknown  never in it
//	held     in it
//	lost     once held, and gone since: it was signed out
//	left     kept out of the store by a refused Export, and still in MSAL's memory
//
// with two marks: the tick (the number of the call) and the time at which it was
// last found lost. (Where it was only left, the tick moves and the time does not,
// unless it was held when it was left, and has gone from the store since.)
// A sign-out by this process moves both marks of an account that was ever held, also
// where the store does not show it: nothing of the account is stored, nothing can be
// read, or the user has signed in again since.
// A mark never goes; it only moves forward. So no answer can
// use it up, and ten refreshes under way are refused like one.
//
//	state                a Replace     a Replace       a hinted Export                    an unhinted
//	                     gives it      does not        brings it                          Export brings it
//	unknown              held          unknown         held; left if the client is        held
//	                                                   public: a refresh creates no
//	                                                   account
//	held, never lost     held          lost            held                               held
//	lost                 held          lost            left if the client is public, or   held
//	                                                   if its call read before the loss,
//	                                                   at most [Undecided] ago; else held
//	held, once lost      held          lost anew       left if its call last read before  held
//	                                                   the loss (of a client that is not
//	                                                   public: at most [Undecided] ago);
//	                                                   else held
//	left                 held, and     lost anew       (a Replace always comes before)
//	                     lost anew
//
// # Invariants
//
//   - What may not be stored is taken out of an Export before anything is merged,
//     saved or kept for later, so that a save which fails and is tried again needs
//     no second decision.
//   - After a refusal the next Replace gives the memory its data anew: from the
//     store or, if that cannot be read, as it was last known.
//   - held counts what the memory was given, with what could not be stored yet.
//   - The memory is given what could not be stored yet, and loses what is kept no
//     longer and what this process has signed out, also by a Replace that cannot read.
//   - A sign-in that the store could not be read for ([Replica.Blank]) has no base:
//     nothing that is stored counts as removed by it, and it counts as later than any
//     sign-out that the store shows. What it brings counts as held.
//   - What was pending may be found stored, or signed out, while an Export is under
//     way. A sign-in of that Export was not pending, and stands.
//   - A sign-out between an Export's own Replace and its save is the merge's to
//     find (package merge, rule 5).
//   - Nothing about one account touches another's entries.
//   - Contexts and accounts are remembered in a bounded number, and no context is
//     kept alive.
//
// # What cannot be known
//
//   - A sign-in that was begun before a sign-out and is answered after it looks
//     like one begun after it. It is stored.
//   - Where a confidential client's calls share one context, the answer of an old
//     refresh looks like a new sign-in. It is refused for [Undecided] after this
//     memory found the account lost, and stored after that. Lost is also an account
//     whose first sign-in failed, because it could neither be stored nor kept.
//   - A sign-out by another process, followed by a new sign-in, both between two looks
//     of a memory, looks like a refresh elsewhere. An old refresh's answer is then
//     stored beside the new session.
//   - A sign-in that could not be stored, of an account that was signed in and out
//     elsewhere meanwhile, is stored later: nobody else ever saw it. One whose save
//     was carried out although its answer was lost looks the same.
package replica
