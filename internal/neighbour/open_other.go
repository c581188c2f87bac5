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

// alive reports true: it is not known.
func alive(pid int) bool { return pid > 0 }

// held reports false: here, the programs' locks keep others from opening the file.
func held(*os.File) bool { return false }
