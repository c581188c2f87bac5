package securefile_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func setACL(t testing.TB, path string, list []byte) {
	t.Helper()
	err := unix.Setxattr(path, "system.posix_acl_access", list, 0)
	env.Require(t, !errors.Is(err, unix.ENOTSUP), "needs a file system with access control lists")
	require.NoError(t, err)
}
