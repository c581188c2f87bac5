//go:build !linux && !freebsd && !netbsd && !openbsd && !darwin && !windows

package keyring

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func newSystem(systemOptions) Limited { return none{} }

// none is the keyring of a platform that has none we can reach.
type none struct{}

func (none) err() error {
	return fmt.Errorf("%w: no keyring is known for %s: %w", persistence.ErrUnavailable, runtime.GOOS, errors.ErrUnsupported)
}

func (n none) Get(context.Context, string, string) (string, error) { return "", n.err() }
func (n none) Set(context.Context, string, string, string) error   { return n.err() }
func (n none) Delete(context.Context, string, string) error        { return n.err() }
func (none) ItemLimit(string, string) int                          { return 0 }
