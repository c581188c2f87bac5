//go:build !unix

package encrypted

import "github.com/tokenkeep/tokenkeep/internal/securefile"

func readKeyFile(path string) ([]byte, error) {
	text, _, err := securefile.Read(path, maxKeyText)
	return text, err
}
