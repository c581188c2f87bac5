// Tokenkeep looks after the sign-ins that programs keep with the module
// github.com/tokenkeep/tokenkeep.
//
//	go install github.com/tokenkeep/tokenkeep/cmd/tokenkeep@latest
//	tokenkeep doctor
//	tokenkeep help
//
// No command prints a secret, unless export is told to.
//
// The exit code is 0 if all is well, 1 if something is wrong or has failed, and 2 if
// the command line is wrong, with and without -json.
//
// # JSON
//
// With -json a command prints one object: schemaVersion, now 1; command; ok;
// and either result or error (message, remedy and class, one of not-found,
// unavailable, locked, corrupt, wrong-key, key-missing, unsupported-version,
// too-large, conflict, lock-timeout, usage, other). As long as schemaVersion is 1,
// fields and ids keep their meaning; new ones may be added.
package main

import (
	"os"

	"github.com/tokenkeep/tokenkeep/cmd/tokenkeep/internal/command"
)

func main() { os.Exit(command.Main()) }
