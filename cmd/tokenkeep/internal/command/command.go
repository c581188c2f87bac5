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
	ctx, stop := Signals()
	defer stop()
	m := &Machine{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Getenv, Keyring: keyring.System(), Cost: encrypted.DefaultCost}
	if runtime.GOOS == "linux" {
		m.Kernel = keyring.Kernel()
	}
	return Run(ctx, os.Args[1:], m)
}

// Signals returns a context that ends with the first signal to end the program.
// The second signal does what the system makes of it.
func Signals() (ctx context.Context, stop func()) {
	ctx, stop = signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func commands() []*command {
	return []*command{doctorCommand, listCommand, inspectCommand, moveCommand, rotateCommand, passphraseCommand,
		clearCommand, restoreCommand, exportCommand, importCommand, versionCommand}
}
