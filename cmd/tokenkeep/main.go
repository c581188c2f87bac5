// Tokenkeep looks after the sign-ins that programs keep with the module
// github.com/tokenkeep/tokenkeep.
//
//	go install github.com/tokenkeep/tokenkeep/cmd/tokenkeep@latest
//	tokenkeep doctor
//	tokenkeep help
//
// No command prints a secret, unless export is told to.
//
// It exits with 0 if all is well, with 1 if something is wrong or failed, and
// with 2 if it was called the wrong way; with -json and without.
//
// # JSON
//
// With -json a command prints one object: schemaVersion, now 1; command; ok;
// and either result or error (message, remedy and class, one of not-found,
// unavailable, locked, corrupt, wrong-key, key-missing, unsupported-version,
// too-large, conflict, lock-timeout, usage, other). Fields and ids that there
// are stay what they are as long as schemaVersion is 1; others may be added.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/keyring"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	m := &machine{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv, keyring: keyring.System(), cost: encrypted.DefaultCost}
	if runtime.GOOS == "linux" {
		m.kernel = keyring.Kernel()
	}
	code := run(ctx, os.Args[1:], m)
	stop()
	os.Exit(code)
}

// machine is what a run finds around itself. Tests give it other keyrings.
type machine struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	keyring        keyring.Keyring // the operating system's
	kernel         keyring.Keyring // nil where there is none
	cost           encrypted.Cost  // of passphrases
	root           string          // before the paths that tell a container; "" but in tests
	patience       time.Duration   // with other processes' locks; 0 for that of programs
}

// The exit codes.
const (
	exitFine    = 0
	exitProblem = 1
	exitMisuse  = 2
)
