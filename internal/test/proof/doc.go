// Package proof has only tests. They prove that tokenkeep loses nothing. They use
// real processes, real MSAL Go clients, real file systems, and an authority that ends a
// sign-in when a refresh token is used twice. Nothing is lost means:
//
//   - no update of eight processes that write at once, nor one that was
//     acknowledged before its process was killed (lost_test.go);
//   - no refresh token, and no sign-out, where processes sign in, refresh and
//     sign out at once (signout_test.go);
//   - nothing to a SIGKILL before any system call of a save, a rotation or a
//     move, or at random moments (sweep_linux_test.go, kill_test.go);
//   - nothing for readers, who need no lock (readers_test.go);
//   - no rotated refresh token to a full or read-only disk, and a sign-out that failed
//     there is reported (trouble_linux_test.go);
//   - nothing that was acknowledged to a power cut (powercut_linux_test.go), and
//     nothing to an fsync that succeeds after it has failed (fsync_linux_test.go).
//
// Every proof has a control: a wrong way to do the same, which must be caught.
//
// The test program executes itself as the processes of a test. What has to
// mount a file system does so in a mount namespace of its own, which ends with
// it. That needs root, or user namespaces; power cuts need root and loop
// devices. The power cut is a file system that is shut down without flushing:
// what a disk does with a flush that it was sent is not part of it.
//
// With the environment variable TOKENKEEP_LONG=1 everything runs many times,
// for five minutes on two idle cores; power cuts run only then:
//
//	TOKENKEEP_LONG=1 go test -race -timeout 30m ./internal/test/proof
package proof
