//go:build !cgo

package e2e

import (
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestExtensionForGo(t *testing.T) {
	env.Require(t, false, "Microsoft's extension for Go needs cgo: install a C compiler")
}
