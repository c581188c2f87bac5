package securefile_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// Time Machine leaves plaintext files out, and keeps the others.
func TestPlaintextIsLeftOutOfBackups(t *testing.T) {
	dir := t.TempDir()
	for excluded, replace := range map[string]func(context.Context, string, ...[]byte) (securefile.Stamp, error){"[Excluded]": securefile.ReplacePlain, "[Included]": securefile.Replace} {
		path := filepath.Join(dir, excluded)
		for range 2 { // the second file replaces the first
			_, err := replace(t.Context(), path, []byte("data"))
			require.NoError(t, err)
		}
		out, err := exec.Command("/usr/bin/tmutil", "isexcluded", path).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), excluded)
	}
}

// On a volume that ignores owners no plaintext is written, and what is encrypted is.
func TestVolumeWithoutOwners(t *testing.T) {
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	run := func(args ...string) {
		out, err := exec.Command("/usr/bin/hdiutil", args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	run("create", "-quiet", "-size", "20m", "-fs", "HFS+J", "-volname", "TKOWN", image)
	for owners, taken := range map[string]bool{"off": false, "on": true} {
		run("attach", "-quiet", "-nobrowse", "-owners", owners, "-mountpoint", dir, image+".dmg")
		folder := filepath.Join(dir, owners)
		require.NoError(t, securefile.MkdirAll(folder))
		_, err := securefile.Replace(t.Context(), filepath.Join(folder, "contoso.enc"), []byte("data"))
		require.NoError(t, err)
		_, err = securefile.ReplacePlain(t.Context(), filepath.Join(folder, "contoso.plaintext.json"), []byte("data"))
		if taken {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, "ignores owners")
			require.NoFileExists(t, filepath.Join(folder, "contoso.plaintext.json"))
		}
		run("detach", "-quiet", "-force", dir)
	}
}

// What a flush of the whole drive costs beside a barrier, which only keeps the order.
func BenchmarkFlush(b *testing.B) {
	for name, how := range map[string]int{"F_FULLFSYNC": unix.F_FULLFSYNC, "F_BARRIERFSYNC": unix.F_BARRIERFSYNC} {
		b.Run(name, func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "file"))
			require.NoError(b, err)
			defer f.Close()
			for b.Loop() {
				_, err := f.WriteAt([]byte("x"), 0)
				require.NoError(b, err)
				_, err = unix.FcntlInt(f.Fd(), how, 0)
				require.NoError(b, err)
			}
		})
	}
}
