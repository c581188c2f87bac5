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

// What a save costs as it is, with two flushes of the whole drive, and what it would
// cost if the first were a barrier, which only keeps the order: the second flushes the
// drive in any case. And what each costs alone. The first two decide whether [Flush] of
// a new file, before its renaming, can be F_BARRIERFSYNC.
func BenchmarkFlush(b *testing.B) {
	flush := func(b *testing.B, f *os.File, how int) {
		_, err := unix.FcntlInt(f.Fd(), how, 0)
		require.NoError(b, err)
	}
	save := func(first int) func(b *testing.B) {
		return func(b *testing.B) {
			dir := b.TempDir()
			d, err := os.Open(dir)
			require.NoError(b, err)
			defer d.Close()
			data, from, to := make([]byte, 10_000), filepath.Join(dir, "from"), filepath.Join(dir, "to")
			for b.Loop() {
				f, err := os.Create(from)
				require.NoError(b, err)
				_, err = f.Write(data)
				require.NoError(b, err)
				flush(b, f, first)
				require.NoError(b, f.Close())
				require.NoError(b, os.Rename(from, to))
				flush(b, d, unix.F_FULLFSYNC)
			}
		}
	}
	b.Run("save, F_FULLFSYNC twice", save(unix.F_FULLFSYNC))
	b.Run("save, F_BARRIERFSYNC and F_FULLFSYNC", save(unix.F_BARRIERFSYNC))
	for name, how := range map[string]int{"F_FULLFSYNC": unix.F_FULLFSYNC, "F_BARRIERFSYNC": unix.F_BARRIERFSYNC} {
		b.Run(name, func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "file"))
			require.NoError(b, err)
			defer f.Close()
			for b.Loop() {
				_, err := f.WriteAt([]byte("x"), 0)
				require.NoError(b, err)
				flush(b, f, how)
			}
		})
	}
}
