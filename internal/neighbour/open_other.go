//go:build !unix

package neighbour

import (
	"context"
	"os"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

func open(ctx context.Context, path string) (*os.File, error) {
	return securefile.OpenForeign(ctx, path)
}

func openLock(path string) (*os.File, error) { return os.Open(path) }

// alive reports true if there is a number: whether the process runs is not known.
func alive(pid int) bool { return pid > 0 }

// held reports false: here, a program that has the file locked keeps others from opening
// it.
func held(*os.File) bool { return false }
