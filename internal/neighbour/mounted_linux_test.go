package neighbour

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestMounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a file.json")
	if os.Getenv("TOKENKEEP_MOUNTED") != "" {
		require.True(t, Mounted(os.Getenv("TOKENKEEP_MOUNTED")))
		return
	}
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.False(t, Mounted(path))
	env.Require(t, os.Geteuid() == 0 && exec.Command("unshare", "-m", "true").Run() == nil, "only root can mount: run the tests as root in a container that may")
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" "$1" && exec "$2" -test.run '^TestMounted$'`, "sh", path, exe)
	cmd.Env = append(os.Environ(), "TOKENKEEP_MOUNTED="+path)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
