// Package signout checks that sign-outs stick. Its tests simulate programs that
// sign users in, refresh and sign them out on one store, in every order of small
// scenarios and in many of larger ones, with reads and saves that fail. [Held] does
// it with the real MSAL client.
//
// A step is one of MSAL's with all that the store does in it or, at random and where a
// save and its answer matter, one call of the store.
//
// The simulation knows of each stored secret when it was asked for. After each step
// it checks that
//
//   - P1: nothing of a refresh from before a sign-out is stored after it, until the
//     user signs in again,
//   - P2: a sign-in that begins after a sign-out is stored,
//   - P3: nobody else loses an entry, and no sign-out is carried out over a later
//     sign-in,
//
// but for what cannot be known; see package replica. With the environment variable
// TOKENKEEP_LONG=1 all interleavings are run. With TOKENKEEP_SEEDS=new many more are
// run at random: that search is open, and what it finds may be a limit that
// check_test.go does not know yet.
package signout
