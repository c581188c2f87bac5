package persistence_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// plainCache opens the cache of a plaintext file, as one more process does.
func plainCache(t testing.TB, path string, opts ...persistence.Option) *persistence.Cache {
	t.Helper()
	f, err := fallback.NewInsecurePlaintextFile(path, func(fallback.Warning) {}, nil)
	require.NoError(t, err)
	return cacheOf(t, f, opts...)
}

func cacheOf(t testing.TB, p persistence.Persistence, opts ...persistence.Option) *persistence.Cache {
	t.Helper()
	c, err := persistence.New(p, append([]persistence.Option{persistence.WithLogger(slog.New(slog.DiscardHandler))}, opts...)...)
	require.NoError(t, err)
	return c
}

// signIn and signOut change what is stored as another program does.
func signIn(t testing.TB, c *persistence.Cache, users ...string) {
	t.Helper()
	for _, user := range users {
		require.NoError(t, c.Update(context.Background(), func(current []byte) ([]byte, error) {
			all, _, err := merge.Bytes(merge.BytesInput{BaseUnknown: true, Ours: oneAccount(user), Theirs: current})
			return all, err
		}))
	}
}

func signOut(t testing.TB, c *persistence.Cache, user string) {
	t.Helper()
	require.NoError(t, c.Update(context.Background(), func(current []byte) ([]byte, error) {
		left, _, err := merge.Bytes(merge.BytesInput{Base: oneAccount(user), Ours: []byte("{}"), Theirs: current})
		return left, err
	}))
}

// watching is a Watch whose end the test waits for.
type watching struct {
	t       testing.TB
	changes <-chan persistence.Change
}

func watch(t testing.TB, c *persistence.Cache, every time.Duration) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{t, c.Watch(ctx, every)}
	t.Cleanup(func() {
		cancel()
		for range w.changes { // until it is closed
		}
	})
	return w
}

// next returns the next change. Only a defect takes so long.
func (w *watching) next() persistence.Change {
	w.t.Helper()
	select {
	case change, ok := <-w.changes:
		require.True(w.t, ok, "closed")
		return change
	case <-time.After(4 * time.Minute):
		w.t.Fatal("no change is reported")
		return persistence.Change{}
	}
}

// expect waits until the accounts are those, and returns all who came and all
// who went on the way.
func (w *watching) expect(accounts ...string) (added, removed []string) {
	w.t.Helper()
	for {
		change := w.next()
		added, removed = append(added, names(change.Added)...), append(removed, names(change.Removed)...)
		if slices.Equal(names(change.Accounts), accounts) {
			return added, removed
		}
	}
}

func names(accounts []persistence.Account) (all []string) {
	for _, a := range accounts {
		all = append(all, a.HomeAccountID)
	}
	return all
}

// waysToWatch runs a test with the notifications of the system, and without.
func waysToWatch(t *testing.T, test func(t *testing.T, every time.Duration)) {
	t.Run("notified", func(t *testing.T) { test(t, time.Hour) })
	t.Run("polling", func(t *testing.T) {
		persistence.WithoutNotifications(t)
		test(t, 5*time.Millisecond)
	})
}

func TestWatch(t *testing.T) {
	waysToWatch(t, func(t *testing.T, every time.Duration) {
		path := filepath.Join(t.TempDir(), "cache.json")
		other := plainCache(t, path)
		signIn(t, other, "ann")
		w := watch(t, plainCache(t, path), every)

		signIn(t, other, "ben")
		change := w.next()
		require.Equal(t, []persistence.Account{
			{HomeAccountID: "ann", Environment: "login", Username: "ann@example.com"},
			{HomeAccountID: "ben", Environment: "login", Username: "ben@example.com"},
		}, change.Accounts)
		require.Equal(t, change.Accounts[1:], change.Added)
		require.Empty(t, change.Removed)

		// A refresh.
		require.NoError(t, other.Update(t.Context(), func(current []byte) ([]byte, error) {
			return bytes.Replace(current, []byte("pl4nted"), []byte("another"), 1), nil
		}))
		change = w.next()
		require.Equal(t, []string{"ann", "ben"}, names(change.Accounts))
		require.Empty(t, change.Added)
		require.Empty(t, change.Removed)

		signOut(t, other, "ann")
		change = w.next()
		require.Equal(t, []string{"ben"}, names(change.Accounts))
		require.Empty(t, change.Added)
		require.Equal(t, []persistence.Account{{HomeAccountID: "ann", Environment: "login", Username: "ann@example.com"}}, change.Removed)

		require.NoError(t, other.Delete(t.Context()))
		change = w.next()
		require.Empty(t, change.Accounts)
		require.Equal(t, []string{"ben"}, names(change.Removed))

		signIn(t, other, "carl")
		require.Equal(t, []string{"carl"}, names(w.next().Added))
	})
}

// The changes made through the very Cache that is watched are reported too.
func TestWatchOfOnesOwnChanges(t *testing.T) {
	waysToWatch(t, func(t *testing.T, every time.Duration) {
		c := plainCache(t, filepath.Join(t.TempDir(), "cache.json"))
		w := watch(t, c, every)
		signIn(t, c, "ann")
		require.Equal(t, []string{"ann"}, names(w.next().Added))
	})
}

// Another program replaces, removes or tears the file, and knows nothing of
// locks.
func TestWatchOfAFileThatIsReplaced(t *testing.T) {
	waysToWatch(t, func(t *testing.T, every time.Duration) {
		dir := t.TempDir()
		path := filepath.Join(dir, "cache.json")
		w := watch(t, plainCache(t, path), every)
		put := func(data []byte) {
			temporary := filepath.Join(dir, "new")
			require.NoError(t, os.WriteFile(temporary, data, 0o600))
			require.NoError(t, os.Rename(temporary, path))
		}
		for _, user := range []string{"ann", "ben"} {
			put(oneAccount(user))
			w.expect(user)
		}
		require.NoError(t, os.WriteFile(path, oneAccount("carl"), 0o600)) // in place
		w.expect("carl")
		put([]byte("no token cache"))
		added, removed := w.expect()
		require.Empty(t, added)
		require.Equal(t, []string{"carl"}, removed)
		require.NoError(t, os.Remove(path))
		w.expect()
		put(oneAccount("dora"))
		w.expect("dora")
	})
}

// The folder is made after the watch has begun, removed, and made again. The
// system cannot tell of that; polling finds it.
func TestWatchOfAFolderThatIsNotThereYet(t *testing.T) {
	const every = 10 * time.Millisecond
	folder := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(folder, "cache.json")
	w := watch(t, plainCache(t, path), every)
	require.NoDirExists(t, folder)
	other := plainCache(t, path)
	signIn(t, other, "ann")
	w.expect("ann")
	if runtime.GOOS == "windows" {
		return // a folder that is watched cannot be removed
	}
	for range 3 {
		require.NoError(t, os.RemoveAll(folder))
		w.expect()
		signIn(t, plainCache(t, path), "ben") // another FileLock, since the lock file is gone
		w.expect("ben")
	}
}

// An account that comes and goes while nobody receives is not reported, the
// final state is, and the writers are not held up.
func TestWatchWithASlowReceiver(t *testing.T) {
	waysToWatch(t, func(t *testing.T, every time.Duration) {
		path := filepath.Join(t.TempDir(), "cache.json")
		other := plainCache(t, path)
		signIn(t, other, "ann", "ben")
		w := watch(t, plainCache(t, path), every)
		for n := range 20 {
			signIn(t, other, fmt.Sprint("user", n))
			if n > 0 {
				signOut(t, other, fmt.Sprint("user", n-1))
			}
		}
		signOut(t, other, "ann")
		added, removed := w.expect("ben", "user19")
		require.Contains(t, added, "user19")
		require.Contains(t, removed, "ann")
		// Each that came on the way has gone again.
		for _, user := range added {
			if user != "user19" {
				require.Contains(t, removed, user)
			}
		}
	})
}

// elapse lets time go by, on the clock of a synctest bubble.
func elapse(d time.Duration) { <-time.After(d) }

// A burst is one change.
func TestWatchGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := persistence.NewMemory()
		other := cacheOf(t, memory)
		ctx, cancel := context.WithCancel(t.Context())
		changes := cacheOf(t, memory).Watch(ctx, 0)
		start := time.Now()
		signIn(t, other, "ann", "ben", "carl")
		change := <-changes
		require.Equal(t, []string{"ann", "ben", "carl"}, names(change.Added))
		require.Equal(t, 5*time.Second, time.Since(start))

		// Nobody receives for an hour.
		for range 60 {
			signOut(t, other, "ann")
			elapse(30 * time.Second)
			signIn(t, other, "ann")
			elapse(30 * time.Second)
		}
		signOut(t, other, "carl")
		elapse(10 * time.Second)
		change = <-changes
		require.Empty(t, change.Added)
		require.Equal(t, []string{"carl"}, names(change.Removed))
		synctest.Wait()
		select {
		case change := <-changes:
			t.Fatal("reported again", change)
		default:
		}

		cancel()
		_, open := <-changes
		require.False(t, open)
		synctest.Wait()
		// The bubble ends only when no goroutine is left.
	})
}

func TestWatchPollsAsOftenAsItIsTold(t *testing.T) {
	for every, want := range map[time.Duration]time.Duration{
		time.Minute: time.Minute, time.Millisecond: time.Millisecond, 0: 5 * time.Second, -1: 5 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			memory := persistence.NewMemory()
			ctx, cancel := context.WithCancel(t.Context())
			changes := cacheOf(t, memory).Watch(ctx, every)
			start := time.Now()
			signIn(t, cacheOf(t, memory), "ann")
			<-changes
			require.Equal(t, want, time.Since(start))
			cancel()
			for range changes {
			}
		})
	}
}

// While nothing changes, nothing is loaded.
func TestWatchLoadsOnlyWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := persistence.NewMemory()
		var loads, revisions atomic.Int32
		counting := persistencetest.Intercept(memory, func(_ context.Context, op string, call func() error) error {
			switch op {
			case "LoadRevision", "Load":
				loads.Add(1)
			case "Revision":
				revisions.Add(1)
			}
			return call()
		})
		signIn(t, cacheOf(t, memory), "ann")
		ctx, cancel := context.WithCancel(t.Context())
		changes := cacheOf(t, counting).Watch(ctx, 0)
		elapse(time.Hour + time.Second)
		cancel()
		for range changes {
		}
		require.EqualValues(t, 1, loads.Load())
		require.EqualValues(t, 720, revisions.Load()-1, "every 5 seconds")
	})
}

// What cannot be read is read later; nobody is reported as gone meanwhile.
func TestWatchOfWhatCannotBeRead(t *testing.T) {
	for _, op := range []string{"Revision", "LoadRevision"} {
		for _, atFirst := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				memory := persistence.NewMemory()
				other := cacheOf(t, memory)
				signIn(t, other, "ann")
				var locked atomic.Bool
				locked.Store(atFirst)
				faulty := persistencetest.Intercept(memory, func(_ context.Context, o string, call func() error) error {
					if o == op && locked.Load() {
						return &persistence.Error{Op: o, Err: persistence.ErrKeyringLocked}
					}
					return call()
				})
				var log bytes.Buffer
				ctx, cancel := context.WithCancel(t.Context())
				changes := cacheOf(t, faulty, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))).Watch(ctx, 0)
				locked.Store(true)
				signIn(t, other, "ben")
				elapse(time.Minute)
				select {
				case change := <-changes:
					t.Fatal(change)
				default:
				}
				locked.Store(false)
				change := <-changes
				require.Equal(t, []string{"ann", "ben"}, names(change.Accounts))
				if atFirst {
					require.Equal(t, []string{"ann", "ben"}, names(change.Added))
				} else {
					require.Equal(t, []string{"ben"}, names(change.Added))
				}
				cancel()
				for range changes {
				}
				require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
				require.NotContains(t, log.String(), "pl4nted")
			})
		}
	}
}

// A backend that does not answer does not outlive the context.
func TestWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hanging atomic.Bool
		hangs := persistencetest.Intercept(persistence.NewMemory(), func(ctx context.Context, _ string, call func() error) error {
			if hanging.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return call()
		})
		ctx, cancel := context.WithCancel(t.Context())
		changes := cacheOf(t, hangs).Watch(ctx, 0)
		hanging.Store(true)
		elapse(7 * time.Second) // in the second look
		cancel()
		_, open := <-changes
		require.False(t, open)

		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		for range cacheOf(t, persistence.NewMemory()).Watch(ctx, 0) { // it has ended already
			t.Fatal("a change")
		}
	})
}

// Nothing of many watches is left, neither goroutines nor what the system gave.
func TestWatchLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.json")
	c := plainCache(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	var all []<-chan persistence.Change
	for range 20 {
		all = append(all, c.Watch(ctx, 0))
	}
	signIn(t, c, "ann")
	for _, changes := range all[:10] { // the others never receive
		require.Equal(t, []string{"ann"}, names((<-changes).Added))
	}
	cancel()
	for _, changes := range all {
		for range changes {
		}
	}
	// A goroutine that has closed the channel may take a moment to end.
	require.Eventually(t, func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !bytes.Contains(stacks, []byte("fsnotify")) && !bytes.Contains(stacks, []byte("(*watcher)"))
	}, 4*time.Minute, time.Millisecond)
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		for _, fd := range fds {
			target, _ := os.Readlink("/proc/self/fd/" + fd.Name())
			require.NotContains(t, target, "inotify")
		}
	}
}

// A backend whose place changes is followed there.
type moving struct {
	persistence.Versioned
	place atomic.Pointer[string]
}

func (m *moving) Describe() persistence.Description {
	return persistence.Description{Backend: "moving", Location: *m.place.Load()}
}

func TestWatchFollowsThePlace(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1", "cache"), filepath.Join(dir, "2", "cache")
	for _, place := range []string{first, second} {
		require.NoError(t, os.Mkdir(filepath.Dir(place), 0o700))
	}
	memory := persistence.NewMemory()
	m := &moving{Versioned: memory}
	m.place.Store(&first)
	w := watch(t, cacheOf(t, m), time.Hour)
	touch := func(path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) }
	signIn(t, cacheOf(t, memory), "ann")
	m.place.Store(&second)
	touch(first) // seen there, it looks, and goes to the second
	w.expect("ann")
	signIn(t, cacheOf(t, memory), "ben")
	touch(second)
	w.expect("ann", "ben")
}

// Odd accounts are reported as far as they can be.
func TestWatchOfOddAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := persistence.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		changes := cacheOf(t, memory).Watch(ctx, 0)
		require.NoError(t, memory.Save(ctx, []byte(`{"Account":{
			"a":{"home_account_id":"A.b","environment":"Login","username":7},
			"b":{"home_account_id":"c.d","environment":"login"},
			"c":{"home_account_id":"e.f","environment":"login","username":"E"},
			"d":17, "e":{"environment":"login","username":"nobody"}},"Other":5}`)))
		require.Equal(t, []persistence.Account{{"A.b", "Login", "7"}, {"c.d", "login", ""}, {"e.f", "login", "E"}}, (<-changes).Accounts)
		require.NoError(t, memory.Save(ctx, []byte(`{"Account":{"a":{"home_account_id":"a.B","environment":"login"}}}`)))
		change := <-changes
		require.Empty(t, change.Added, "a name in another case is the same account")
		require.Equal(t, []string{"c.d", "e.f"}, names(change.Removed))
		cancel()
		for range changes {
		}
	})
}

const watchChild = "TOKENKEEP_WATCH_CHILD"

// In another process: it watches, and says what it sees.
func TestWatchChild(t *testing.T) {
	path := os.Getenv(watchChild)
	if path == "" {
		return
	}
	c := watchedFile(t, path)
	w := watch(t, c, 0)
	fmt.Println("watching")
	go func() { // until the parent has enough, or has gone
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		change := w.next()
		fmt.Printf("change: %v\n", names(change.Accounts))
	}
}

func watchedFile(t *testing.T, path string) *persistence.Cache {
	f, err := encrypted.New(path, encrypted.Raw(make([]byte, 32)), nil)
	require.NoError(t, err)
	return cacheOf(t, f)
}

func TestWatchOfAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	exe, err := os.Executable()
	require.NoError(t, err)
	var seen []*lines
	for range 2 {
		child := exec.CommandContext(t.Context(), exe, "-test.run=^TestWatchChild$")
		child.Env = append(os.Environ(), watchChild+"="+path)
		in, err := child.StdinPipe()
		require.NoError(t, err)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		defer func() {
			in.Close()
			require.NoError(t, child.Wait())
		}()
		l := &lines{t: t, r: out}
		l.until("watching")
		seen = append(seen, l)
	}
	c := watchedFile(t, path)
	signIn(t, c, "ann")
	for _, l := range seen {
		l.until("change: [ann]")
	}
	signIn(t, c, "ben")
	signOut(t, c, "ann")
	for _, l := range seen {
		l.until("change: [ben]")
	}
	require.NoError(t, c.Delete(t.Context()))
	for _, l := range seen {
		l.until("change: []")
	}
}

// lines are what a process prints.
type lines struct {
	t    *testing.T
	r    io.Reader
	text []byte
}

// until reads up to that line.
func (l *lines) until(line string) {
	l.t.Helper()
	buf := make([]byte, 4096)
	for {
		if _, rest, ok := bytes.Cut(l.text, []byte(line+"\n")); ok {
			l.text = rest
			return
		}
		n, err := l.r.Read(buf)
		l.text = append(l.text, buf[:n]...)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			l.t.Fatalf("%v, after %q and before %q", err, l.text, line)
		}
	}
}

func ExampleCache_Watch() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	open := func() *persistence.Cache { // as two programs do
		f, err := encrypted.New(filepath.Join(dir, "cache"), encrypted.Raw(make([]byte, 32)), nil)
		if err != nil {
			panic(err)
		}
		c, err := persistence.New(f)
		if err != nil {
			panic(err)
		}
		return c
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	changes := open().Watch(ctx, 0)

	// Another program signs a user in.
	err = open().Update(ctx, func([]byte) ([]byte, error) {
		return []byte(`{"Account":{"k":{"home_account_id":"1.2","environment":"login.microsoftonline.com","username":"ann@contoso.com"}}}`), nil
	})
	if err != nil {
		panic(err)
	}
	for change := range changes {
		for _, a := range change.Added {
			fmt.Println("signed in:", a.Username)
		}
		cancel() // which closes the channel
	}
	// Output: signed in: ann@contoso.com
}
