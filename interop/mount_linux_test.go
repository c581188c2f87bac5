package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// A file that is mounted by itself cannot be replaced: the save fails, says so, and
// leaves nothing behind.
func TestFileMountedByItself(t *testing.T) {
	env.Require(t, os.Geteuid() == 0 && exec.Command("unshare", "-m", "true").Run() == nil, "only root can mount: run the tests as root in a container that may")
	path := folder(t)
	writeFile(t, path, rt(kept, "x"))
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" "$1" && shift && exec "$@"`, "sh", path, exe, path, "o", "1", "0")
	cmd.Env = append(os.Environ(), programVariable+"=ours", "GORACE=atexit_sleep_ms=0")
	r := startPeer(t, cmd).rest()
	require.Empty(t, r.added)
	require.Len(t, r.errors, 1)
	require.Contains(t, r.errors[0], "mounted by itself")
	require.Contains(t, r.errors[0], "Share the folder")
	require.Empty(t, missing(t, path, []string{kept}))
	require.Equal(t, []string{"cache.json"}, names(t, filepath.Dir(path)))
}
