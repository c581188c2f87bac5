//go:build unix

package securefile_test

import (
	"os"
	"strconv"
	"syscall"
)

// With this variable set, a child gives up being root and is that user.
const childUser = "TOKENKEEP_TEST_UID"

func becomeUser() {
	uid, err := strconv.Atoi(os.Getenv(childUser))
	if err != nil {
		return
	}
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)} {
		if err != nil {
			panic(err)
		}
	}
}
