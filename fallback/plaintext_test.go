package fallback_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

var (
	_ persistence.Versioned   = (*fallback.InsecurePlaintextFile)(nil)
	_ persistence.NamedLocker = (*fallback.InsecurePlaintextFile)(nil)
	_ persistence.Describer   = (*fallback.InsecurePlaintextFile)(nil)
)

func quiet(fallback.Warning) {}

func TestPlaintextConformance(t *testing.T) {
	const maxSize = 1 << 16
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		path := filepath.Join(t.TempDir(), "cache.json")
		return func() (persistence.Persistence, error) {
			return fallback.NewInsecurePlaintextFile(path, quiet, &fallback.Options{MaxSize: maxSize})
		}
	}, &persistencetest.Options{MaxSize: maxSize})
}

func TestPlaintextIsWhatItSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new folder", "cache.json")
	f, err := fallback.NewInsecurePlaintextFile(path, quiet, nil)
	require.NoError(t, err)
	require.Equal(t, persistence.Description{Backend: "plaintext", Location: path}, persistence.Describe(f))
	require.NoDirExists(t, filepath.Dir(path))

	data := []byte(`{"AccessToken":{}}`)
	rev, err := f.SaveIf(t.Context(), data, "")
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	require.Equal(t, hex.EncodeToString(sum[:]), rev)
	stored, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, data, stored)
	if runtime.GOOS != "windows" {
		for p, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
			fi, err := os.Stat(p)
			require.NoError(t, err)
			require.Equal(t, mode, fi.Mode())
		}
	}
}

// Whoever stores tokens in plain text has to tell the user, once, before
// anything is stored or used.
func TestPlaintextWarns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.json")
	_, err := fallback.NewInsecurePlaintextFile(path, nil, nil)
	require.Error(t, err)
	require.IsType(t, (*persistence.Error)(nil), err)

	var warnings []fallback.Warning
	open := func() *fallback.InsecurePlaintextFile {
		warnings = nil
		f, err := fallback.NewInsecurePlaintextFile(path, func(w fallback.Warning) {
			warnings = append(warnings, w)
			stored, _ := os.ReadFile(path)
			require.NotEqual(t, "secret, not yet warned of", string(stored))
		}, &fallback.Options{Reason: "There is no keyring.", Remedy: "Start one."})
		require.NoError(t, err)
		return f
	}

	f := open()
	_, err = f.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.Empty(t, warnings, "nothing is stored yet")
	for range 2 {
		require.NoError(t, f.Save(t.Context(), []byte("secret, not yet warned of")))
	}
	require.Equal(t, []fallback.Warning{{
		Backend: "plaintext", Location: path,
		Message: "Your sign-in is stored without encryption in " + path + ".",
		Reason:  "There is no keyring.", Remedy: "Start one.",
	}}, warnings)
	require.Equal(t, "Your sign-in is stored without encryption in "+path+". There is no keyring. Start one.", warnings[0].String())
	require.NotContains(t, warnings[0].String(), "secret")

	require.NoError(t, f.Save(t.Context(), []byte("secret")))
	f = open()
	for range 2 {
		_, err = f.Load(t.Context())
		require.NoError(t, err)
	}
	require.Len(t, warnings, 1)

	f = open()
	_, err = f.SaveIf(t.Context(), []byte("other"), "not that")
	require.ErrorIs(t, err, persistence.ErrConflict)
	require.Len(t, warnings, 1)
	require.Equal(t, "No reason.", fallback.Warning{Reason: "No reason."}.String())
}

func TestPlaintextWarnsOnceForAllGoroutines(t *testing.T) {
	var n atomic.Int32
	f, err := fallback.NewInsecurePlaintextFile(filepath.Join(t.TempDir(), "c"), func(fallback.Warning) { n.Add(1) }, nil)
	require.NoError(t, err)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if err := f.Save(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 1, n.Load())
}

// With the Lock option the writers of several files share one lock.
func TestPlaintextSharesALock(t *testing.T) {
	dir := t.TempDir()
	lock := persistence.NewFileLock(filepath.Join(dir, "shared.lock"))
	f, err := fallback.NewInsecurePlaintextFile(filepath.Join(dir, "cache.json"), quiet, &fallback.Options{Lock: lock})
	require.NoError(t, err)
	unlock, err := persistence.NewFileLock(lock.Path()).Lock(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, f.Save(ctx, nil), persistence.ErrLockTimeout)
	require.NoError(t, unlock())

	unlock, err = lock.Lock(t.Context())
	require.NoError(t, err)
	require.NoError(t, f.Save(t.Context(), nil)) // relies on it
	require.NoError(t, unlock())
}

// A link that a dotfile manager made is followed; lock and file lie at its end.
func TestPlaintextFollowsALink(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links are refused on Windows")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "dotfiles"), 0o700))
	link, target := filepath.Join(dir, "cache.json"), filepath.Join(dir, "dotfiles", "cache.json")
	require.NoError(t, os.Symlink(target, link))
	f, err := fallback.NewInsecurePlaintextFile(link, quiet, nil)
	require.NoError(t, err)
	require.NoError(t, f.Save(t.Context(), []byte("x")))
	require.Equal(t, target, f.Describe().Location)
	require.FileExists(t, target+".lock")
	require.NoFileExists(t, link+".lock")
	fi, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, fi.Mode()&os.ModeSymlink)
}
