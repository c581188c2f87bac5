package encrypted

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// keyFileVariable names the key file that TestReadKeyFile reads, in a process of
// its own.
const keyFileVariable = "ENCRYPTED_TEST_KEY_FILE"

// TestReadKeyFile is the program of TestKeyFileInAMount: it prints what it read.
func TestReadKeyFile(t *testing.T) {
	path := os.Getenv(keyFileVariable)
	if path == "" {
		return
	}
	key, err := KeyFile(path).(*externalKey).key(t.Context())
	if err == nil {
		os.Stdout.WriteString("key " + base64.StdEncoding.EncodeToString(key) + "\n")
	}
}

// Secrets are read from real mounts as Docker and Kubernetes make them, which a
// program cannot write. The control is the same without a mount, or mounted to be
// written: there somebody else could change the key.
func TestKeyFileInAMount(t *testing.T) {
	env.Require(t, os.Geteuid() == 0 && env.CanMount(), "needs to mount file systems, as root")
	const user = 12345
	key := base64.StdEncoding.EncodeToString(randomKey())
	exe, err := os.Executable()
	require.NoError(t, err)
	// A copy that every user can run.
	base, err := os.MkdirTemp("", "keyfile")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	require.NoError(t, os.Chmod(base, 0o755))
	program := filepath.Join(base, "program")
	text, err := os.ReadFile(exe)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, text, 0o755))

	const (
		volume = `mkdir "$D/..v" && printf %s "$KEY" >"$D/..v/key" && chmod 644 "$D/..v/key" && ln -s ..v "$D/..data" && ln -s ..data/key "$D/key"`
		tmpfs  = `mount -t tmpfs none "$D" && chmod 777 "$D" && ` + volume
		bound  = ` && mount --bind "$D" "$D" && mount -o remount,bind,ro "$D"`
		plain  = `printf %s "$KEY" >"$D/key" && chmod 444 "$D/key"`
	)
	for name, c := range map[string]struct {
		prepare string // makes $D/key
		uid     int
		taken   bool
	}{
		"Kubernetes' volume, whose file system is read-only": {tmpfs + ` && mount -o remount,ro "$D"`, user, true},
		"Kubernetes' volume, bound read-only":                {tmpfs + bound, user, true},
		"the same for root":                                  {tmpfs + bound, 0, true},
		"the same, and a group could write the folder":       {tmpfs + ` && chmod 775 "$D"` + bound, user, true},
		"a file, bound read-only, as Docker's secrets":       {plain + ` && mount --bind "$D/key" "$D/key" && mount -o remount,bind,ro "$D/key"`, user, true},
		"the same, open to be written but for the mount":     {plain + ` && chmod 644 "$D/key" && mount --bind "$D/key" "$D/key" && mount -o remount,bind,ro "$D/key"`, 0, true},

		"control: Kubernetes' volume that can be written": {tmpfs, user, false},
		"control: the same for root":                      {tmpfs, 0, false},
		"control: a group can write the folder":           {tmpfs + ` && chmod 775 "$D"`, user, false},
		"control: root's own file":                        {plain + ` && chmod 644 "$D/key"`, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp(base, "mount")
			require.NoError(t, err)
			require.NoError(t, os.Chmod(dir, 0o755))
			path := filepath.Join(dir, "key")
			cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", "mount --make-rprivate / && "+c.prepare+
				` && exec setpriv --reuid="$AS" --regid="$AS" --clear-groups "$PROGRAM" -test.run='^TestReadKeyFile$'`)
			cmd.Env = append(os.Environ(), "D="+dir, "KEY="+key, "AS="+map[int]string{0: "0", user: "12345"}[c.uid], "PROGRAM="+program, keyFileVariable+"="+path, "HOME=/nonexistent")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			if c.taken {
				require.Contains(t, string(out), "key "+key)
			} else {
				require.NotContains(t, string(out), key)
				require.Contains(t, string(out), "PASS")
			}
		})
	}
}
