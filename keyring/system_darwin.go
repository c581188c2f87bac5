package keyring

import (
	"errors"
	"io/fs"
	"os/exec"
	"runtime"
)

func newSystem(o systemOptions) Limited {
	return &native{systemOptions: o, calls: goKeyring{}, goos: runtime.GOOS, classify: classifySecurity}
}

func classifySecurity(err error) error {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return classifyExit(exit.ExitCode())
	case errors.Is(err, fs.ErrNotExist):
		return unavailable("/usr/bin/security is missing", "Restore macOS's own security program.")
	}
	return nil
}
