package proof

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// On XFS in an image whose own disk is full, an fsync fails, and a second one
// of the same file succeeds though the data are gone; while the kernel has them
// in memory they even read back. A save fails then, and the old data stay.
func TestSecondFsyncLies(t *testing.T) {
	onlyLong(t)
	env.Require(t, os.Geteuid() == 0, "needs root, to mount file systems")
	if !ownMounts(t) {
		return
	}
	data := func(n byte) []byte { return bytes.Repeat([]byte{n}, 4<<20) }
	stored := func(t *testing.T, p place) string {
		stored, err := p.load()
		require.NoError(t, err)
		for n := range byte(4) {
			if bytes.Equal(stored, data(n)) {
				return fmt.Sprint(n)
			}
		}
		return "torn"
	}
	prepare := func(t *testing.T, kind string) (p place, v *volume, free func()) {
		disk, xfs := newTmpfs(t, "size=160m"), disks["xfs"]
		v = newImage(t, filepath.Join(disk.dir, "image"), xfs.size, xfs.options, xfs.mkfs...)
		p = newPlace(t, kind)
		p.dir = filepath.Join(v.dir, "tokens")
		require.NoError(t, p.save(data(1)))
		return p, v, disk.fill()
	}
	for _, kind := range []string{encryptedFile, plaintextFile, opened} {
		t.Run(kind, func(t *testing.T) {
			p, v, free := prepare(t, kind)
			err := p.save(data(2))
			free()
			require.ErrorIs(t, err, unix.ENOSPC)
			v.restart()
			require.Equal(t, "1", stored(t, p))
			require.NoError(t, p.save(data(3)))
			require.Len(t, dirFiles(t, p.dir), 1)
		})
	}
	t.Run("control", func(t *testing.T) {
		p, v, free := prepare(t, plaintextFile)
		err := saveTryingFsyncTwice(p.path()+".json", data(2))
		free()
		require.NoError(t, err)
		require.Equal(t, "2", stored(t, p), "while it is in memory")
		v.restart()
		require.Equal(t, "torn", stored(t, p), "the control was not caught: this test proves nothing")
	})
}

// saveTryingFsyncTwice is the control.
func saveTryingFsyncTwice(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if f.Sync() == nil {
		return errors.New("the first fsync succeeds")
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
