//go:build !unix

package encrypted

import (
	"context"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// chmod600 is empty: there are no modes.
const chmod600 = ""

func readKeyFile(ctx context.Context, path string) ([]byte, error) {
	text, _, err := securefile.Read(ctx, path, maxKeyText)
	return text, err
}
