//go:build !linux && !freebsd && !netbsd && !openbsd && !darwin && !windows

package keyring

import (
	"context"
	"runtime"
)

func newSystem(settings) Limited { return none{} }

// none is the keyring of a platform for which this package knows none.
type none struct{}

func (none) err() error { return unsupported("no keyring is known for " + runtime.GOOS) }

func (n none) Get(context.Context, string, string) (string, error) { return "", n.err() }
func (n none) Set(context.Context, string, string, string) error   { return n.err() }
func (n none) Delete(context.Context, string, string) error        { return n.err() }
func (none) ItemLimit(string, string) int                          { return 0 }
