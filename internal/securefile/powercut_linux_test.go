package securefile_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// The power fails right after a write returned: what it did is on the disk. The
// control leaves out the two fsyncs, and what it wrote must be gone.
func TestPowerCut(t *testing.T) {
	needRoot(t)
	replace := func(content string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			_, err := securefile.Replace(t.Context(), path, []byte(content))
			require.NoError(t, err)
		}
	}
	for _, tt := range []struct {
		name         string
		before, last func(t *testing.T, path string) // before is on the disk for certain
		want         string                          // "" means no file
	}{
		{"the first, in new folders", nil, replace("new"), "new"},
		{"one more", replace("old"), replace("new"), "new"},
		{"removed", replace("old"), func(t *testing.T, path string) { require.NoError(t, securefile.Remove(t.Context(), path)) }, ""},
		{"renamed", replace("old"), func(t *testing.T, path string) {
			require.NoError(t, securefile.Rename(t.Context(), path, path+".aside"))
		}, ""},
		{"control", replace("old"), func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".tmp", []byte("new"), 0o600))
			require.NoError(t, os.Rename(path+".tmp", path))
		}, "old"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := newDisk(t)
			path := filepath.Join(disk.dir, "a", "b", "cache")
			if tt.before != nil {
				tt.before(t, path)
				disk.sync(t)
			}
			tt.last(t, path)
			disk.powerCut(t)
			data, _, err := securefile.Read(t.Context(), path, limit)
			if tt.want == "" {
				require.ErrorIs(t, err, fs.ErrNotExist)
			} else {
				require.NoError(t, err)
				require.Equal(t, tt.want, string(data))
			}
			if tt.name == "renamed" {
				data, _, err := securefile.Read(t.Context(), path+".aside", limit)
				require.NoError(t, err)
				require.Equal(t, "old", string(data))
			}
		})
	}
}

// disk is an ext4 file system in a file, mounted at dir.
type disk struct{ image, dir string }

func newDisk(t *testing.T) disk {
	t.Helper()
	tmp := t.TempDir()
	d := disk{filepath.Join(tmp, "image"), filepath.Join(tmp, "disk")}
	require.NoError(t, os.WriteFile(d.image, nil, 0o600))
	require.NoError(t, os.Truncate(d.image, 16<<20))
	require.NoError(t, os.Mkdir(d.dir, 0o700))
	run(t, "mkfs.ext4", "-q", "-O", "^metadata_csum", d.image)
	run(t, "mount", "-o", mountOptions, d.image, d.dir)
	t.Cleanup(func() { exec.Command("umount", d.dir).Run() })
	return d
}

const mountOptions = "loop,commit=300" // nothing is written by itself for 300 s

func (d disk) sync(t *testing.T) {
	t.Helper()
	f, err := os.Open(d.dir)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.Syncfs(int(f.Fd())))
}

// powerCut stops the file system without writing anything more to the disk, and
// mounts it again.
func (d disk) powerCut(t *testing.T) {
	t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	f, err := os.Open(d.dir)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush))
	require.NoError(t, f.Close())
	for _, args := range [][]string{{"umount", d.dir}, {"mount", "-o", mountOptions, d.image, d.dir}} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
}

// run runs a command that a machine may not have, or not allow.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		t.Skipf("needs %s: %v: %s", name, err, out)
	}
}
