//go:build !windows

package encrypted

import (
	"errors"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func protect(data, entropy []byte) ([]byte, error) { return nil, noDPAPI() }

func unprotect(data, entropy []byte) ([]byte, error) { return nil, noDPAPI() }

func noDPAPI() error {
	return remedy.Errorf("Run the program on Windows, as the user who stored the tokens, or use another store for the key.",
		"%w: DPAPI is a part of Windows: %w", persistence.ErrUnavailable, errors.ErrUnsupported)
}
