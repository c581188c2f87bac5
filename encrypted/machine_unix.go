//go:build unix

package encrypted

import (
	"os"
	"strconv"
)

// readUser returns the id of the user who runs this process.
func readUser() string { return strconv.Itoa(os.Geteuid()) }
