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

func openLock(ctx context.Context, path string) (*os.File, error) {
	return securefile.OpenForeign(ctx, path)
}

// alive reports true if there is a number: whether the process runs is not known.
func alive(pid int) bool { return pid > 0 }
