//go:build !linux

package keyring

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func newKernel() Limited { return noKernel{} }

// noKernel is the kernel keyring where there is none.
type noKernel struct{}

func (noKernel) err() error {
	return fmt.Errorf("%w: only Linux has a kernel keyring, and this is %s: %w", persistence.ErrUnavailable, runtime.GOOS, errors.ErrUnsupported)
}

func (n noKernel) Get(context.Context, string, string) (string, error) { return "", n.err() }
func (n noKernel) Set(context.Context, string, string, string) error   { return n.err() }
func (n noKernel) Delete(context.Context, string, string) error        { return n.err() }
func (noKernel) ItemLimit(string, string) int                          { return 0 }
