//go:build linux || darwin

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/neighbour"
	"github.com/tokenkeep/tokenkeep/internal/test/reveal"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const client = "client-a"

// rt is a cache with one refresh token.
func rt(client, secret string) string {
	return fmt.Sprintf(`{"RefreshToken":{%q:{"home_account_id":"u.t","environment":"login.microsoftonline.com","client_id":%q,"credential_type":"RefreshToken","secret":%q}}}`,
		"u.t-login.microsoftonline.com-refreshtoken-"+client+"--", client, secret)
}

// folder returns a neighbour's folder, and sets a cache folder for our own lock.
func folder(t testing.TB) (file string) {
	t.Helper()
	t.(*testing.T).Setenv("XDG_CACHE_HOME", t.TempDir())
	t.(*testing.T).Setenv("HOME", t.TempDir())
	return filepath.Join(t.TempDir(), "cache.json")
}

func writeFile(t testing.TB, path, data string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
}

// settle makes the file look as if nobody were writing it: the change time cannot
// be set, so this waits for the clock of the file system.
func settle(t testing.TB, path string) {
	t.Helper()
	for {
		at, err := stampOf(path)
		require.NoError(t, err)
		if at.age() > neighbour.Unsettled {
			return
		}
		wait(t, 20*time.Millisecond)
	}
}

func wait(t testing.TB, d time.Duration) { require.NoError(t, sleep(context.Background(), d)) }

func writable(t testing.TB, path string, clients ...string) *Store {
	t.Helper()
	if len(clients) == 0 {
		clients = []string{client}
	}
	s, err := File(path, Options{Clients: clients, Write: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return s
}

func secretOf(t testing.TB, data []byte, client string) string {
	t.Helper()
	var d struct {
		RefreshToken map[string]struct {
			ClientID string `json:"client_id"`
			Secret   string
		}
	}
	require.NoError(t, json.Unmarshal(data, &d), "%s", data)
	for _, e := range d.RefreshToken {
		if e.ClientID == client {
			return e.Secret
		}
	}
	return ""
}

func names(t testing.TB, dir string) (all []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{}, {Clients: []string{""}}} {
		_, err := File("/x", o)
		var e *persistence.Error
		require.ErrorAs(t, err, &e)
		require.NotEmpty(t, e.Remedy)
	}
	_, err := File("", Options{Clients: []string{client}})
	require.Error(t, err)
}

// Without Write, nothing of the neighbour's folder changes: no file, no inode, no
// mode, no time, not even that of the last access.
func TestReadOnlyChangesNothing(t *testing.T) {
	path := folder(t)
	writeFile(t, path, rt(client, "mine"))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, old, old))
	dir := filepath.Dir(path)
	before := stateOf(t, dir)
	s, err := File(path, Options{Clients: []string{client}})
	require.NoError(t, err)
	ctx := t.Context()
	data, rev, err := s.LoadRevision(ctx)
	require.NoError(t, err)
	require.Equal(t, "mine", secretOf(t, data, client))
	now, err := s.Revision(ctx)
	require.NoError(t, err)
	require.Equal(t, rev, now)
	unlock, err := s.Lock(ctx)
	require.NoError(t, err)
	_, err = s.SaveIf(ctx, []byte(rt(client, "new")), rev)
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, s.Save(ctx, []byte("{}")), ErrReadOnly)
	require.ErrorIs(t, s.Delete(ctx), ErrReadOnly)
	require.ErrorIs(t, s.DeleteIf(ctx, rev), ErrReadOnly)
	require.NoError(t, unlock())
	require.Equal(t, before, stateOf(t, dir))

	t.Run("control", func(t *testing.T) {
		_, err := os.ReadFile(path)
		require.NoError(t, err)
		if stateOf(t, dir) == before {
			t.Log("this file system keeps no access times: only the rest is proved")
		}
		require.NoError(t, writable(t, path).Save(ctx, []byte(rt(client, "other"))))
		require.NotEqual(t, before, stateOf(t, dir))
	})
}

func stateOf(t testing.TB, dir string) string {
	var b strings.Builder
	for _, p := range append([]string{"."}, names(t, dir)...) {
		i, err := os.Lstat(filepath.Join(dir, p))
		require.NoError(t, err)
		fmt.Fprintf(&b, "%s %v %d %v %s\n", p, i.Mode(), i.Size(), i.ModTime(), systemState(i))
		if i.Mode().IsRegular() {
			at, err := stampOf(filepath.Join(dir, p))
			require.NoError(t, err)
			fmt.Fprintf(&b, "%+v\n", at)
		}
	}
	return b.String()
}

func TestWriteKeepsWhatOthersHave(t *testing.T) {
	path := folder(t)
	writeFile(t, path, rt("client-x", "theirs"))
	require.NoError(t, os.Chmod(path, 0o644))
	s, ctx := writable(t, path), t.Context()
	_, err := s.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
	rev, err := s.SaveIf(ctx, []byte(rt(client, "mine")), "")
	require.NoError(t, err)
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "theirs", secretOf(t, raw, "client-x"))
	require.Equal(t, "mine", secretOf(t, raw, client))
	require.Equal(t, []string{"cache.json"}, names(t, filepath.Dir(path)), "no lock and no temporary file is left")
	i, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), i.Mode().Perm())
	_, err = s.SaveIf(ctx, []byte(rt(client, "newer")), "other")
	require.ErrorIs(t, err, persistence.ErrConflict)
	require.NotEmpty(t, rev)
	require.NoError(t, s.Delete(ctx))
	_, err = s.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
	raw, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "theirs", secretOf(t, raw, "client-x"))
	require.NoError(t, s.Delete(ctx))
}

// An entry that another client adds is no conflict and no new revision.
func TestRevisionIsOfTheView(t *testing.T) {
	path := folder(t)
	s, other, ctx := writable(t, path), writable(t, path, "client-x"), t.Context()
	require.NoError(t, s.Save(ctx, []byte(rt(client, "mine"))))
	_, rev, err := s.LoadRevision(ctx)
	require.NoError(t, err)
	require.NoError(t, other.Save(ctx, []byte(rt("client-x", "theirs"))))
	now, err := s.Revision(ctx)
	require.NoError(t, err)
	require.Equal(t, rev, now)
	_, err = s.SaveIf(ctx, []byte(rt(client, "newer")), rev)
	require.NoError(t, err)
	now, err = s.Revision(ctx)
	require.NoError(t, err)
	require.NotEqual(t, rev, now)
	data, err := other.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, "theirs", secretOf(t, data, "client-x"))
}

// MSAL Python reads a file again only if its time is later than its clock was when
// it read last. So a new file's time is later than now, and than the one before.
func TestNewFileIsSeen(t *testing.T) {
	path := folder(t)
	s, ctx := writable(t, path), t.Context()
	var last time.Time
	for n := range 100 {
		require.NoError(t, s.Save(ctx, []byte(rt(client, fmt.Sprint(n)))))
		i, err := os.Stat(path)
		require.NoError(t, err)
		require.True(t, i.ModTime().After(last), "%v is not after %v", i.ModTime(), last)
		require.Zero(t, i.ModTime().Nanosecond()%1e6, "MSAL Node compares whole milliseconds")
		last = i.ModTime()
	}
	future := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(path, future, future))
	require.NoError(t, s.Save(ctx, []byte(rt(client, "late"))))
	i, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, i.ModTime().After(future))
}

// A symbolic link to the data stays one, and the lock lies beside the link.
func TestSymbolicLink(t *testing.T) {
	path := folder(t)
	target := filepath.Join(t.TempDir(), "real.json")
	writeFile(t, target, rt("client-x", "theirs"))
	require.NoError(t, os.Symlink(target, path))
	s := writable(t, path)
	require.NoError(t, s.Save(t.Context(), []byte(rt(client, "mine"))))
	i, err := os.Lstat(path)
	require.NoError(t, err)
	require.NotZero(t, i.Mode()&fs.ModeSymlink)
	raw, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "mine", secretOf(t, raw, client))
	require.Equal(t, path+".lockfile", s.lockPath())
}

func TestRefusals(t *testing.T) {
	ctx := t.Context()
	t.Run("no folder", func(t *testing.T) {
		err := writable(t, filepath.Join(folder(t), "cache.json")).Save(ctx, []byte(rt(client, "x")))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Contains(t, persistence.Remedy(err), "Start the program")
	})
	t.Run("a folder", func(t *testing.T) {
		path := folder(t)
		require.NoError(t, os.Mkdir(path, 0o700))
		_, err := writable(t, path).Load(ctx)
		require.ErrorIs(t, err, persistence.ErrUnavailable)
	})
	t.Run("a FIFO", func(t *testing.T) {
		path := folder(t)
		require.NoError(t, syscall.Mkfifo(path, 0o600))
		_, err := writable(t, path).Load(ctx)
		require.ErrorIs(t, err, persistence.ErrUnavailable)
	})
	t.Run("open folder", func(t *testing.T) {
		path := folder(t)
		require.NoError(t, os.Chmod(filepath.Dir(path), 0o777))
		require.ErrorIs(t, writable(t, path).Save(ctx, []byte(rt(client, "x"))), persistence.ErrUnavailable)
	})
	t.Run("a shape that MSAL.NET would delete", func(t *testing.T) {
		path := folder(t)
		writeFile(t, path, `{"RefreshToken":[]}`)
		require.Error(t, writable(t, path).Save(ctx, []byte(rt(client, "x"))))
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, `{"RefreshToken":[]}`, string(raw))
	})
	t.Run("entries of others than MSAL", func(t *testing.T) {
		require.Error(t, writable(t, folder(t)).Save(ctx, []byte(`{"OAuth2Token":{"k":{"a":1}}}`)))
		require.Error(t, writable(t, folder(t)).Save(ctx, []byte(`no cache`)))
	})
	t.Run("context", func(t *testing.T) {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		s := writable(t, folder(t))
		require.ErrorIs(t, s.Save(ended, []byte(rt(client, "x"))), context.Canceled)
		_, err := s.Revision(ended)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// A file that a neighbour is writing is waited for; one that was left half is
// damaged.
func TestHalfFile(t *testing.T) {
	path := folder(t)
	s, ctx := writable(t, path), t.Context()
	whole := rt(client, "mine")
	writeFile(t, path, whole[:20])
	done := make(chan error, 1)
	go func() {
		done <- os.WriteFile(path, []byte(whole), 0o600)
	}()
	data, err := s.Load(ctx)
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Equal(t, "mine", secretOf(t, data, client))

	fresh := writable(t, path)
	writeFile(t, path, whole[:20])
	settle(t, path)
	_, err = fresh.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrCorrupt)
	require.NotContains(t, err.Error(), "mine")
	writeFile(t, path, "")
	settle(t, path)
	_, err = fresh.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
}

// A file that a killed neighbour has left empty or half is put right from what was
// read last, with the change in it. It is said once.
func TestHeal(t *testing.T) {
	for name, left := range map[string]string{"empty": "", "half": rt(client, "mine")[:30]} {
		t.Run(name, func(t *testing.T) {
			path, ctx := folder(t), t.Context()
			all := strings.Replace(rt("client-x", "theirs"), `}}}`, `},`+rt(client, "mine")[len(`{"RefreshToken":{`):], 1)
			writeFile(t, path, all)
			var log bytes.Buffer
			s, err := File(path, Options{Clients: []string{client}, Write: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, err)
			_, rev, err := s.LoadRevision(ctx)
			require.NoError(t, err)
			writeFile(t, path, left)
			settle(t, path)
			data, now, err := s.LoadRevision(ctx)
			require.NoError(t, err)
			require.Equal(t, rev, now, "what was seen is seen still")
			require.Equal(t, "mine", secretOf(t, data, client))
			_, err = s.SaveIf(ctx, []byte(rt(client, "newer")), rev)
			require.NoError(t, err)
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "theirs", secretOf(t, raw, "client-x"))
			require.Equal(t, "newer", secretOf(t, raw, client))
			require.Equal(t, 1, strings.Count(log.String(), "put right"), log.String())
			require.NotContains(t, log.String(), "theirs")

			// The control: a Store that has read nothing has nothing to put right from.
			writeFile(t, path, left)
			settle(t, path)
			err = writable(t, path).Save(ctx, []byte(rt(client, "alone")))
			raw, readErr := os.ReadFile(path)
			require.NoError(t, readErr)
			if left == "" {
				require.NoError(t, err)
				require.NotContains(t, string(raw), "theirs")
			} else {
				require.ErrorIs(t, err, persistence.ErrCorrupt)
			}
		})
	}
	// What is removed on purpose stays away.
	path, ctx := folder(t), t.Context()
	s := writable(t, path)
	require.NoError(t, s.Save(ctx, []byte(rt(client, "mine"))))
	require.NoError(t, os.Remove(path))
	_, err := s.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
}

// A lock file that is in the way: whose holder lives, it is waited for until the
// context ends; whose holder is dead, it is removed.
func TestLockFileInTheWay(t *testing.T) {
	dead := func(t *testing.T) int {
		cmd := exec.Command("true")
		require.NoError(t, cmd.Run())
		return cmd.Process.Pid
	}
	lie := func(t *testing.T, content string) (s *Store, lock string) {
		path := folder(t)
		writeFile(t, path+".lockfile", content)
		return writable(t, path), path + ".lockfile"
	}
	t.Run("ours, dead", func(t *testing.T) {
		s, lock := lie(t, fmt.Sprint(os.Getpid(), " ", neighbour.Ours))
		start := time.Now()
		require.NoError(t, s.Save(t.Context(), []byte(rt(client, "x"))))
		t.Logf("%v", time.Since(start))
		require.NoFileExists(t, lock)
	})
	t.Run("of a dead process", func(t *testing.T) {
		s, lock := lie(t, fmt.Sprint(dead(t), " python3"))
		require.NoError(t, s.Save(t.Context(), []byte(rt(client, "x"))))
		require.NoFileExists(t, lock)
	})
	t.Run("of a living process, but not locked", func(t *testing.T) {
		s, lock := lie(t, fmt.Sprint(os.Getpid()))
		start := time.Now()
		require.NoError(t, s.Save(t.Context(), []byte(rt(client, "x"))))
		require.GreaterOrEqual(t, time.Since(start), lostAfter, "a living holder was not given its time")
		require.NoFileExists(t, lock)
	})
	for name, content := range map[string]string{"locked": "", "ours, locked": fmt.Sprint(os.Getpid(), " ", neighbour.Ours)} {
		t.Run(name, func(t *testing.T) {
			s, lock := lie(t, content)
			f, err := os.Open(lock)
			require.NoError(t, err)
			defer f.Close()
			require.NoError(t, flock(int(f.Fd())))
			ctx, cancel := context.WithTimeout(t.Context(), deadAfter+500*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, s.Save(ctx, []byte(rt(client, "x"))), persistence.ErrLockTimeout)
			require.FileExists(t, lock)
			require.NoFileExists(t, s.path)
			require.Equal(t, []string{"cache.json.lockfile"}, names(t, filepath.Dir(lock)))
		})
	}
	// A control for the first: what is not ours is not taken at once.
	t.Run("young", func(t *testing.T) {
		s, lock := lie(t, fmt.Sprint(dead(t), " python3"))
		ctx, cancel := context.WithTimeout(t.Context(), deadAfter/10)
		defer cancel()
		require.ErrorIs(t, s.Save(ctx, []byte(rt(client, "x"))), persistence.ErrLockTimeout)
		require.FileExists(t, lock)
	})
}

// Without unnamed files, as on macOS, the same holds, and old litter is swept.
func TestNamedTemporaryFiles(t *testing.T) {
	path := folder(t)
	litter := tempName(path)
	writeFile(t, litter, "x")
	young := tempName(path)
	writeFile(t, young, "x")
	old := time.Now().Add(-2 * litterAge)
	require.NoError(t, os.Chtimes(litter, old, old))
	f, err := makeNamed(path)
	require.NoError(t, err)
	_, err = f.WriteString("{}")
	require.NoError(t, err)
	require.NoFileExists(t, litter)
	require.FileExists(t, young)
	require.NoError(t, f.replace(path, time.Time{}))
	f.discard()
	require.Equal(t, []string{filepath.Base(young), "cache.json"}, names(t, filepath.Dir(path)))

	lock, err := makeNamed(path + ".lockfile")
	require.NoError(t, err)
	require.NoError(t, lock.linkTo(path+".lockfile"))
	lock.discard()
	require.FileExists(t, path+".lockfile")
}

// A conflict that is found under the other programs' lock keeps it until the next try
// or the unlock.
func TestLockIsKeptOverAConflict(t *testing.T) {
	path := folder(t)
	s, ctx := writable(t, path), t.Context()
	unlock, err := s.Lock(ctx)
	require.NoError(t, err)
	peer, err := lockPeer(ctx, s.lockPath())
	require.NoError(t, err)
	require.True(t, s.keepLock(peer))
	_, err = s.SaveIf(ctx, []byte(rt(client, "x")), "other")
	require.ErrorIs(t, err, persistence.ErrConflict)
	require.FileExists(t, s.lockPath())
	_, err = s.SaveIf(ctx, []byte(rt(client, "x")), "")
	require.NoError(t, err)
	require.NoFileExists(t, s.lockPath())
	peer, err = lockPeer(ctx, s.lockPath())
	require.NoError(t, err)
	require.True(t, s.keepLock(peer))
	require.NoError(t, unlock())
	require.NoFileExists(t, s.lockPath())
	peer, err = lockPeer(ctx, s.lockPath())
	require.NoError(t, err)
	require.False(t, s.keepLock(peer), "nobody would let it go")
	require.True(t, peer.release())
}

// A neighbour that removes our lock while we hold it is noticed.
func TestLockThatIsTakenAway(t *testing.T) {
	path := folder(t)
	peer, err := lockPeer(t.Context(), path+".lockfile")
	require.NoError(t, err)
	require.True(t, peer.mine())
	require.NoError(t, os.Remove(path+".lockfile"))
	writeFile(t, path+".lockfile", "of somebody else")
	require.False(t, peer.mine())
	require.False(t, peer.release())
	require.FileExists(t, path+".lockfile", "what is not ours is not removed")
}

func TestGoroutines(t *testing.T) {
	path := folder(t)
	var wg sync.WaitGroup
	var errs [8]error
	for i := range errs {
		s := writable(t, path, fmt.Sprint("client-", i))
		wg.Go(func() {
			for n := range 10 {
				errs[i] = errors.Join(errs[i], s.Save(t.Context(), []byte(rt(fmt.Sprint("client-", i), fmt.Sprint(n)))))
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range errs {
		require.Equal(t, "9", secretOf(t, raw, fmt.Sprint("client-", i)))
	}
}

func TestStoreIsPrintedAsItsDescription(t *testing.T) {
	const secret = "planted-secret"
	path := folder(t)
	s := writable(t, path)
	require.NoError(t, s.Save(t.Context(), []byte(rt(client, secret))))
	out := reveal.All(s) + reveal.All(struct{ s *Store }{s})
	require.NotContains(t, out, secret)
	require.Equal(t, "shared file "+path, fmt.Sprintf("%+v", s))
	require.Equal(t, persistence.Description{Backend: "shared file", Location: path}, s.Describe())
}
