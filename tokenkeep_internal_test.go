package tokenkeep

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

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
