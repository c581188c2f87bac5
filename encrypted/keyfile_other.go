//go:build !unix

package encrypted

import (
	"context"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// chmod600 is empty: there are no modes.
const chmod600 = ""

// readKeyFile reads a key file that only the user, the system and administrators can
// read or change.
func readKeyFile(ctx context.Context, path string) ([]byte, error) {
	text, _, err := securefile.Read(ctx, path, maxKeyText)
	if err == nil {
		err = securefile.CheckPrivate(path)
	}
	if err != nil {
		return nil, err
	}
	return text, nil
}
