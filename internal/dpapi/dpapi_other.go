//go:build !windows

package dpapi

import (
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Protect encrypts data. Entropy, which may be nil, must be given again to decrypt
// it.
func Protect(data, entropy []byte) ([]byte, error) { return nil, unsupported() }

// Unprotect decrypts what Protect has encrypted. It fails with a Refused where
// Windows does not decrypt, and with ErrUnavailable where DPAPI does not work.
func Unprotect(data, entropy []byte) ([]byte, error) { return nil, unsupported() }

func unsupported() error {
	return fmt.Errorf("%w: DPAPI is a part of Windows: %w", persistence.ErrUnavailable, errors.ErrUnsupported)
}
