// Package command is the program tokenkeep, which is documented in
// cmd/tokenkeep.
package command

import (
	"context"
	"os"
	"os/signal"
	"runtime"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/keyring"
)

// Main runs the program as its user has called it, and returns the exit code.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	m := &Machine{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Getenv, Keyring: keyring.System(), Cost: encrypted.DefaultCost}
	if runtime.GOOS == "linux" {
		m.Kernel = keyring.Kernel()
	}
	return Run(ctx, os.Args[1:], m)
}

func commands() []*command {
	return []*command{doctorCommand, listCommand, inspectCommand, moveCommand, rotateCommand, passphraseCommand,
		clearCommand, restoreCommand, exportCommand, importCommand, versionCommand}
}
