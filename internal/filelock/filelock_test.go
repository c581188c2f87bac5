package filelock_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func lockPath(t testing.TB) string { return filepath.Join(t.TempDir(), "cache.lock") }

// must takes the lock, which is to be had.
func must(t testing.TB, l *filelock.Lock) (unlock func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	release, err := l.Lock(ctx)
	require.NoError(t, err)
	return func() { t.Helper(); require.NoError(t, release()) }
}

// timesOut fails to take the lock.
func timesOut(t testing.TB, l *filelock.Lock) *filelock.TimeoutError {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := l.Lock(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var timeout *filelock.TimeoutError
	require.ErrorAs(t, err, &timeout)
	return timeout
}

// waits makes a goroutine wait for the lock, whose caller has gone.
func waits(t testing.TB, path string) {
	t.Helper()
	for filelock.Queues() == 0 { // a caller whose time is over at once leaves none
		timesOut(t, filelock.New(path, true))
	}
}

func TestLockAndUnlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "for it", "cache.lock")
	l := filelock.New(path, true)
	for range 3 {
		unlock, err := l.Lock(t.Context())
		require.NoError(t, err)
		require.NoError(t, unlock())
		require.NoError(t, unlock()) // does nothing
	}
	// A second call of unlock does not let the next holder's lock go.
	first, err := l.Lock(t.Context())
	require.NoError(t, err)
	require.NoError(t, first())
	defer must(t, l)()
	require.NoError(t, first())
	timesOut(t, l)
	timesOut(t, filelock.New(path, true))
}

func TestEndedContext(t *testing.T) {
	path := lockPath(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := filelock.New(path, true).Lock(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoFileExists(t, path)
}

// Goroutines of one process exclude each other, through one Lock and through
// several.
func TestGoroutines(t *testing.T) {
	for _, shared := range []bool{true, false} {
		path := lockPath(t)
		one := filelock.New(path, true)
		var inside atomic.Int32
		var group sync.WaitGroup
		n := 0
		for range 8 {
			group.Go(func() {
				l := one
				if !shared {
					l = filelock.New(path, true)
				}
				for range 25 {
					unlock, err := l.Lock(t.Context())
					if err != nil || inside.Add(1) != 1 {
						t.Errorf("%v, or another one inside", err)
						return
					}
					n++
					inside.Add(-1)
					if err := unlock(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		require.Equal(t, 200, n)
	}
}

// Processes exclude each other. The control deletes the lock file when it lets
// the lock go, and must be caught.
func TestProcesses(t *testing.T) {
	processes, sections := 8, 60
	if os.Getenv("TOKENKEEP_LONG") == "1" {
		processes, sections = 16, 2000
	}
	run := func(t *testing.T, mode string) (overlaps []string) {
		path := lockPath(t)
		wait, begin, err := os.Pipe() // all begin together, when it is closed
		require.NoError(t, err)
		defer wait.Close()
		var children []*exec.Cmd
		var outs []*strings.Builder
		for range processes {
			cmd, out := command(t, mode, path, strconv.Itoa(sections)), new(strings.Builder)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = wait, out, out
			require.NoError(t, cmd.Start())
			children, outs = append(children, cmd), append(outs, out)
		}
		require.NoError(t, begin.Close())
		for i, cmd := range children {
			if err := cmd.Wait(); err != nil {
				overlaps = append(overlaps, outs[i].String())
			}
		}
		return overlaps
	}
	t.Run("lock", func(t *testing.T) { require.Empty(t, run(t, "sections")) })
	t.Run("control", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("Windows does not delete a file that others have open")
		}
		for range 20 {
			if overlaps := run(t, "deleting sections"); len(overlaps) > 0 {
				require.Contains(t, strings.Join(overlaps, ""), "overlap")
				return
			}
		}
		t.Fatal("deleting the lock file never let two in: this test proves nothing")
	})
}

// The lock of a killed holder is free at once, and the next one says nothing of it.
func TestKilledHolder(t *testing.T) {
	path := lockPath(t)
	l := filelock.New(path, true)
	for range 3 {
		cmd, _ := holder(t, path)
		timeout := timesOut(t, l)
		require.Equal(t, cmd.Process.Pid, timeout.PID)
		require.WithinDuration(t, time.Now(), timeout.Since, time.Hour)
		require.Contains(t, timeout.Error(), strconv.Itoa(cmd.Process.Pid))
		require.NoError(t, cmd.Process.Kill())
		must(t, l)()
	}
	pid, _, ok := filelock.Holder(path)
	require.True(t, ok)
	require.Equal(t, os.Getpid(), pid)
}

// A caller whose context ends leaves its place to the next one: no further
// goroutine waits, and the lock is released if it has no caller any more.
func TestAbandonedWait(t *testing.T) {
	path := lockPath(t)
	before := runtime.NumGoroutine()
	end := held(t, path)
	waits(t, path)
	waiting := runtime.NumGoroutine()
	for range 50 {
		timesOut(t, filelock.New(path, true))
	}
	// Those that end a wait may still be about to end themselves.
	for start := time.Now(); runtime.NumGoroutine() > waiting; runtime.Gosched() {
		require.Less(t, time.Since(start), 4*time.Minute, "one goroutine waits for all")
	}

	// The next caller takes it over.
	got := make(chan error, 1)
	go func() {
		unlock, err := filelock.New(path, true).Lock(t.Context())
		if err == nil {
			err = unlock()
		}
		got <- err
	}()
	end()
	require.NoError(t, <-got)

	// Without a caller the lock is free for others.
	end = held(t, path)
	timesOut(t, filelock.New(path, true))
	end()
	held(t, path)() // another process gets it
	must(t, filelock.New(path, true))()
	for runtime.NumGoroutine() > before || filelock.Queues() > 0 { // the goroutine ends
		runtime.Gosched()
	}
}

// held has another process hold the lock until end is called.
func held(t testing.TB, path string) (end func()) {
	cmd, stdin := holder(t, path)
	return func() {
		stdin.Close()
		require.NoError(t, cmd.Wait())
	}
}

// However many callers give up waiting, by one Lock or by several, with whatever
// path to the folder, a process waits once. The control is a Lock that shares
// nothing with others.
func TestManyAbandonedWaits(t *testing.T) {
	path := lockPath(t)
	link := filepath.Join(t.TempDir(), "link")
	paths := []string{path, filepath.Dir(path) + "/./" + filepath.Base(path)}
	// Windows may not allow links, and Wine makes some that lead nowhere.
	if err := os.Symlink(filepath.Dir(path), link); err == nil && !env.Wine() {
		paths = append(paths, filepath.Join(link, filepath.Base(path)))
	}
	end := held(t, path)
	waits(t, path)
	waiting, threads := runtime.NumGoroutine(), threadsOf(t)

	const n = 3000
	ctx, cancel := context.WithCancel(t.Context())
	var started, group sync.WaitGroup
	for i := range n {
		started.Add(1)
		group.Go(func() {
			l := filelock.New(paths[i%len(paths)], true)
			started.Done()
			_, err := l.Lock(ctx)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	started.Wait()
	timesOut(t, filelock.New(path, true))
	cancel()
	group.Wait()
	for range 200 {
		timesOut(t, filelock.New(path, true))
	}
	// Those that end a wait may still be about to end themselves.
	for start := time.Now(); runtime.NumGoroutine() > waiting; runtime.Gosched() {
		require.Less(t, time.Since(start), 4*time.Minute, "one goroutine waits for all")
	}
	require.Less(t, threadsOf(t)-threads, 50, "threads")
	require.Equal(t, 1, filelock.Queues())

	for range 200 { // the control
		timesOut(t, filelock.NewAlone(path))
	}
	require.Greater(t, runtime.NumGoroutine(), waiting+50, "every wait was shared: this test proves nothing")
	if threads > 0 {
		require.Greater(t, threadsOf(t), 100, "threads are not counted: this test proves nothing") // some may have been idle before
	}

	end()
	must(t, filelock.New(path, true))()
	for filelock.Queues() > 0 {
		runtime.Gosched()
	}
}

// Callers in one process are served in the order in which they came.
func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := lockPath(t)
		unlock := must(t, filelock.New(path, true))
		var served []int
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() {
				release, err := filelock.New(path, true).Lock(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				served = append(served, i)
				release()
			})
			synctest.Wait() // until it waits
		}
		unlock()
		group.Wait()
		require.IsIncreasing(t, served)
		require.Len(t, served, 20)
	})
}

// A wait without a caller makes no new file where one is gone: the folder may have
// been given up meanwhile.
func TestAbandonedWaitMakesNoFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows deletes no file that is open")
	}
	path := lockPath(t)
	before := runtime.NumGoroutine()
	end := held(t, path)
	timesOut(t, filelock.New(path, true))
	require.NoError(t, os.Remove(path))
	end()
	for runtime.NumGoroutine() > before {
		runtime.Gosched()
	}
	require.NoFileExists(t, path)
	must(t, filelock.New(path, true))()
}

// While this process waits for a lock file, somebody deletes it, or the
// turnstile. New callers do not wait for what has no name any more.
func TestWaitForDeletedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows deletes no file that is open")
	}
	path := lockPath(t)
	end := held(t, path)
	timesOut(t, filelock.New(path, true))
	require.NoError(t, os.Remove(path))
	unlock := must(t, filelock.New(path, true))
	end()
	timesOut(t, filelock.New(path, true))
	unlock()
	must(t, filelock.New(path, true))()
	for filelock.Queues() > 0 {
		runtime.Gosched()
	}
}

// While the abandoned wait is on, and when it ends, callers come and go.
func TestAbandonedWaitsUnderLoad(t *testing.T) {
	path := lockPath(t)
	l, other := filelock.New(path, true), filelock.NewAlone(path)
	var inside, taken atomic.Int32
	var group sync.WaitGroup
	for w := range 6 {
		group.Go(func() {
			for i := range 60 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i*7+w)%9)*100*time.Microsecond)
				lock := l
				if w == 0 {
					lock = other
				}
				unlock, err := lock.Lock(ctx)
				cancel()
				var timeout *filelock.TimeoutError
				if errors.As(err, &timeout) {
					continue
				}
				if err != nil || inside.Add(1) != 1 {
					t.Errorf("%v, or another one inside", err)
					return
				}
				taken.Add(1)
				runtime.Gosched()
				inside.Add(-1)
				if err := unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	require.NotZero(t, taken.Load())
	must(t, l)()
	must(t, other)()
}

// Somebody deletes or replaces the lock file: who waits for the old one does not
// take it for the lock.
func TestLockFileReplaced(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not delete a file that others have open")
	}
	for name, replace := range map[string]func(path string) error{
		"deleted": os.Remove,
		"replaced": func(path string) error {
			if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := lockPath(t)
			old := must(t, filelock.NewAlone(path)) // of the file that goes
			waiter := filelock.New(path, true)
			timesOut(t, waiter) // its goroutine waits for the old file
			require.NoError(t, replace(path))
			current := must(t, filelock.New(path, false)) // of the new file; the turnstile is taken
			old()                                         // now the waiter has the old file
			timesOut(t, waiter)
			current()
			must(t, waiter)()
		})
	}
}

// On ReFS two files can have the same 64-bit id, and only that of 128 bits tells them
// apart. Whoever has locked a file that was replaced by such a one has no lock. In the
// control the long ids are the same too.
func TestLockFileReplacedByOneWithItsShortID(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not delete a file that others have open")
	}
	for name, long := range map[string]func(path string) (securefile.ID, error){
		"128 bits":           securefile.IDOf,
		"control: 64 of 128": func(string) (securefile.ID, error) { return securefile.ID{Ino: 1}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			path := lockPath(t)
			filelock.WithIdentity(t, func(_, _ fs.FileInfo) bool { return true }, long)
			old := must(t, filelock.NewAlone(path))
			waiter := filelock.NewAlone(path)
			taken := make(chan func() error, 1)
			go func() {
				if unlock, err := waiter.Lock(t.Context()); err == nil {
					taken <- unlock
				}
			}()
			waitsFor := func() (hasIt bool) {
				id, err := securefile.IDOf(path)
				require.NoError(t, err)
				for filelock.WaitsFor(waiter) != id {
					select {
					case unlock := <-taken:
						require.NoError(t, unlock())
						return true
					default:
						runtime.Gosched()
					}
				}
				return false
			}
			require.False(t, waitsFor())
			require.NoError(t, os.Rename(path, path+".old"))
			current := must(t, filelock.New(path, false)) // of the new file
			old()
			two := waitsFor()
			current()
			require.Equal(t, strings.HasPrefix(name, "control"), two, "two have the lock")
			if !two {
				require.NoError(t, (<-taken)())
			}
		})
	}
}

// Processes that take the lock again and again share it, about evenly. The
// measure is a ratio of counts, not a time. The control polls.
func TestFairness(t *testing.T) {
	const processes = 4
	total := 2000
	if env.Wine() {
		total = 200 // waiting is slow there
	}
	shares := func(t *testing.T, mode string) (least, most int) {
		path := lockPath(t)
		lines := make(chan int)
		done := make(chan struct{})
		var readers sync.WaitGroup
		for i := range processes {
			_, stdin, out := start(t, mode, path)
			readers.Go(func() {
				defer stdin.Close()
				for out.Scan() {
					line := i
					if out.Text() == "ready" {
						line = -1
					}
					select {
					case lines <- line:
					case <-done:
						return
					}
				}
			})
		}
		counts := make([]int, processes)
		for ready, n := 0, 0; n < total; {
			switch i := <-lines; {
			case i < 0:
				ready++
			case ready == processes: // counting begins when all are there
				counts[i]++
				n++
			}
		}
		close(done)
		readers.Wait()
		least, most = counts[0], counts[0]
		for _, c := range counts {
			least, most = min(least, c), max(most, c)
		}
		return least, most
	}
	// Who waits for the turnstile is served in whatever order the system wakes
	// them, so some get a few times as much as others; starved is something else.
	const starved = 20
	least, most := shares(t, "count")
	t.Logf("turnstile: %d to %d of %d", least, most, total)
	require.Greater(t, least*starved, most, "a process was starved")
	if env.Wine() {
		return // there, nobody is fast enough to starve the others
	}
	for range 10 {
		least, most := shares(t, "barging count")
		t.Logf("polling: %d to %d of %d", least, most, total)
		if least*starved <= most {
			return
		}
	}
	t.Fatal("polling is as fair: this test proves nothing")
}

func TestNote(t *testing.T) {
	path := lockPath(t)
	l := filelock.New(path, true)
	unlock := must(t, l)
	note, err := filelock.ReadNote(path)
	require.NoError(t, err)
	require.Empty(t, note)
	for _, want := range []string{"key 0123456789abcdef keyring", "short", strings.Repeat("x", 512), "", "again"} {
		require.NoError(t, filelock.WriteNote(path, want))
		note, err := filelock.ReadNote(path)
		require.NoError(t, err)
		require.Equal(t, want, note)
	}
	require.Error(t, filelock.WriteNote(path, "two\nlines"))
	require.Error(t, filelock.WriteNote(path, strings.Repeat("x", 513)))
	unlock()
	defer must(t, l)() // a new holder leaves the note as it is
	note, err = filelock.ReadNote(path)
	require.NoError(t, err)
	require.Equal(t, "again", note)
	pid, _, ok := filelock.Holder(path)
	require.True(t, ok)
	require.Equal(t, os.Getpid(), pid)
}

func TestHolderOfJunk(t *testing.T) {
	for _, content := range []string{"", "x", strings.Repeat("x", 100), strings.Repeat("\x00", 100), "\x00        -1 2026-01-02T15:04:05Z\n"} {
		path := lockPath(t)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, _, ok := filelock.Holder(path)
		require.False(t, ok)
		l := filelock.New(path, true)
		must(t, l)()
		_, _, ok = filelock.Holder(path)
		require.True(t, ok)
	}
}

func BenchmarkLock(b *testing.B) {
	for name, fair := range map[string]bool{"fair": true, "without turnstile": false} {
		b.Run(name, func(b *testing.B) {
			l := filelock.New(lockPath(b), fair)
			b.ReportAllocs()
			for b.Loop() {
				unlock, err := l.Lock(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				unlock()
			}
		})
	}
}
