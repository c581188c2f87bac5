//go:build !linux

package keyring

import (
	"context"
	"runtime"
)

func newKernel() Limited { return noKernel{} }

// noKernel is the kernel keyring of systems that have none.
type noKernel struct{}

func (noKernel) err() error {
	return unsupported("only Linux has a kernel keyring; this is " + runtime.GOOS)
}

func (n noKernel) Get(context.Context, string, string) (string, error) { return "", n.err() }
func (n noKernel) Set(context.Context, string, string, string) error   { return n.err() }
func (n noKernel) Delete(context.Context, string, string) error        { return n.err() }
func (noKernel) ItemLimit(string, string) int                          { return 0 }
