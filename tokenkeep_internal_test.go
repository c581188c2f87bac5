package tokenkeep

import (
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A program that names the system's keyring, to have it ask or to give its own tests
// another one, keeps the kernel's behind it. One that brings a keyring of its own has
// to name the kernel's.
func TestTheSystemsKeyringKeepsTheKernelsBehindIt(t *testing.T) {
	onLinux := runtime.GOOS == "linux"
	for name, test := range map[string]struct {
		cfg    Config
		kernel bool
	}{
		"none":              {Config{}, onLinux},
		"system":            {Config{Keyring: keyring.System()}, onLinux},
		"system that asks":  {Config{Keyring: keyring.System(keyring.WithPrompt())}, onLinux},
		"kernel":            {Config{Keyring: keyring.Kernel()}, true},
		"control: a mock":   {Config{Keyring: keyringtest.New()}, false},
		"control: wrapped":  {Config{Keyring: struct{ keyring.Keyring }{keyring.System()}}, false},
		"a mock, and named": {Config{Keyring: keyringtest.New(), Order: []string{"keyring", "kernel"}}, true},
	} {
		require.Equal(t, test.kernel, test.cfg.keyringOf(layout.Kernel) != nil, name)
		require.Equal(t, test.kernel, slices.Contains(test.cfg.named(), layout.Kernel), name)
	}
}

// Where only another folder helps, the user learns which variable names one, if the
// folder is the platform's. A remedy that mends the folder stays as it is.
func TestVariableIsNamedWhereOnlyAnotherFolderHelps(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		named bool
	}{
		"another folder":         {&securefile.Error{Advice: "Use a folder that only you can write.", Elsewhere: true, Err: fs.ErrPermission}, true},
		"a command in its words": {&securefile.Error{Advice: "Use another, such as one made with: mkdir", Elsewhere: true, Err: fs.ErrPermission}, true},
		"a command":              {&securefile.Error{Advice: "Close it: chmod 700 dir", Err: fs.ErrPermission}, false},
		"another layer":          {fmt.Errorf("lock: %w", &securefile.Error{Advice: "Close it: chmod 700 dir", Err: fs.ErrPermission}), false},
		"no advice":              {&securefile.Error{Reason: "is not a folder", Err: fs.ErrExist}, true},
		"the system's error":     {fs.ErrPermission, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := openError("dir", test.err, persistence.Remedy(test.err))
			with := withVariable(err, true)
			require.ErrorIs(t, with, test.err, "the cause stays")
			if test.named {
				require.Contains(t, persistence.Remedy(with), persistence.Remedy(err))
				require.Contains(t, persistence.Remedy(with), dirVariable())
			} else {
				require.Equal(t, err, with)
			}
			require.Equal(t, err, withVariable(err, false), "the program's own folder")
		})
	}
}
