//go:build unix

package filestore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filestore"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Writers of one file that reach it by a symbolic link and by its own path share
// a lock: no update is lost. The control has a lock beside each path.
func TestLinkAndTargetShareALock(t *testing.T) {
	const writers, updates = 4, 40
	run := func(t *testing.T, lock func(path string) *persistence.FileLock) (total int) {
		dir := t.TempDir()
		target := filepath.Join(dir, "real", "cache")
		paths := []string{target, filepath.Join(dir, "links", "cache"), filepath.Join(dir, "links", "again"), filepath.Join(dir, "folder", "cache")}
		for _, d := range []string{"real", "links"} {
			require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o700))
		}
		require.NoError(t, os.Symlink(target, paths[1]))
		require.NoError(t, os.Symlink("cache", paths[2]))
		require.NoError(t, os.Symlink("real", filepath.Dir(paths[3])))
		require.NoError(t, open(t, target, filestore.Options{}).Save(t.Context(), []byte("0")))
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				path := paths[w%len(paths)]
				s := open(t, path, filestore.Options{Lock: lock(path)})
				for done := 0; done < updates; {
					data, rev, err := s.LoadRevision(t.Context())
					if err == nil {
						n, _ := strconv.Atoi(string(data))
						_, err = s.SaveIf(t.Context(), []byte(strconv.Itoa(n+1)), rev)
					}
					switch {
					case err == nil:
						done++
					case !errors.Is(err, persistence.ErrConflict):
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		data, err := open(t, target, filestore.Options{}).Load(t.Context())
		require.NoError(t, err)
		total, err = strconv.Atoi(string(data))
		require.NoError(t, err)
		if lock("") == nil {
			require.NoFileExists(t, paths[1]+".lock")
			require.NoFileExists(t, paths[2]+".lock")
			require.FileExists(t, target+".lock")
		}
		return total
	}
	require.Equal(t, writers*updates, run(t, func(string) *persistence.FileLock { return nil }))
	for range 20 {
		beside := func(path string) *persistence.FileLock { return persistence.NewFileLock(path + ".lock") }
		if total := run(t, beside); total < writers*updates {
			return
		}
	}
	t.Fatal("a lock beside each path lost no update: this test proves nothing")
}
