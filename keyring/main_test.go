package keyring

import (
	"fmt"
	"os"
	"testing"
)

// programs are what the test program can be besides: other processes, chosen by
// an environment variable.
var programs = map[string]func(args []string) error{}

// AddProgram is for the external test package.
func AddProgram(name string, f func(args []string) error) { programs[name] = f }

// MacOSLimit is for the external test package: the limit of System on macOS.
func MacOSLimit(service, user string) int { return (*keychain)(nil).ItemLimit(service, user) }

// WindowsLimit is for the external test package: the limit of System on Windows.
var WindowsLimit = (*credentialManager)(nil).ItemLimit("", "")

func TestMain(m *testing.M) {
	if program := programs[os.Getenv("TOKENKEEP_TEST_PROGRAM")]; program != nil {
		if err := program(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
