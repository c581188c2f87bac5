package encrypted

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// dirRing stores keys as files in a folder, for several processes. Before and
// after its n-th step it may end the process.
type dirRing struct {
	dir  string
	step func()
}

func (r *dirRing) Source() string { return "keyring" }

func (r *dirRing) NewKey(ctx context.Context, id string) (string, []byte, error) {
	r.step()
	key, err := r.Key(ctx, id)
	if errors.Is(err, persistence.ErrKeyMissing) {
		key = randomKey()
		err = os.WriteFile(filepath.Join(r.dir, id), key, 0o600)
	}
	r.step()
	return id, key, err
}

func (r *dirRing) Key(_ context.Context, ref string) ([]byte, error) {
	r.step()
	key, err := os.ReadFile(filepath.Join(r.dir, refID(ref)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, remedy.Errorf("Sign in again.", "%w", persistence.ErrKeyMissing)
	}
	return key, err
}

func (r *dirRing) DeleteKey(_ context.Context, ref string) error {
	r.step()
	err := os.Remove(filepath.Join(r.dir, refID(ref)))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	r.step()
	return err
}

func (r *dirRing) ids(t testing.TB) (ids []string) {
	t.Helper()
	entries, err := os.ReadDir(r.dir)
	require.NoError(t, err)
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// runChild is a process of a test: TOKENKEEP_TEST_CHILD says what it does.
func runChild(what string) int {
	dir, n := os.Getenv("TOKENKEEP_TEST_DIR"), 0
	kill, _ := strconv.Atoi(os.Getenv("TOKENKEEP_TEST_KILL"))
	r := &dirRing{filepath.Join(dir, "keys"), func() {
		if n++; n == kill {
			p, _ := os.FindProcess(os.Getpid())
			p.Kill()
			select {}
		}
	}}
	var err error
	f, openErr := New(filepath.Join(dir, "cache"), r, &Options{Name: "contoso-cli"})
	switch what {
	case "first-save":
		err = errors.Join(openErr, addLines(f, os.Getenv("TOKENKEEP_TEST_ID")))
	case "dpapi":
		if f, err = New(filepath.Join(dir, "cache"), DPAPI(), &Options{Name: "contoso-cli"}); err == nil {
			err = addLines(f, os.Getenv("TOKENKEEP_TEST_ID"))
		}
	case "rotate":
		err = errors.Join(openErr, f.Rotate(ctx, r))
	case "delete":
		err = errors.Join(openErr, f.Delete(ctx))
	case "check-and-save":
		err = errors.Join(openErr, f.Check(ctx), f.Save(ctx, []byte("data")))
	case "print-key":
		fmt.Println(os.Getenv("TOKENKEEP_TEST_PRINT"))
	case "print-much":
		for {
			if _, err := os.Stdout.WriteString(strings.Repeat("much ", 1000)); err != nil {
				return 1
			}
		}
	case "hang":
		os.WriteFile(os.Getenv("TOKENKEEP_TEST_PID"), []byte(strconv.Itoa(os.Getpid())), 0o600)
		time.Sleep(time.Hour)
	case "leave-child": // that has the standard output, and outlives this one
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "TOKENKEEP_TEST_CHILD=hang")
		c.Stdout = os.Stdout
		if err = c.Start(); err == nil {
			time.Sleep(time.Hour)
		}
	default:
		err = errors.New("no such child")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// addLines waits until its input is closed, then adds ten lines to the file,
// each in a read-modify-write.
func addLines(f *File, id string) error {
	io.Copy(io.Discard, os.Stdin)
	if err := f.Check(ctx); err != nil {
		return err
	}
	for i := range 10 {
		for {
			data, rev, err := f.LoadRevision(ctx)
			if err != nil && !errors.Is(err, persistence.ErrNotFound) {
				return err
			}
			_, err = f.SaveIf(ctx, fmt.Appendf(data, "%s-%d\n", id, i), rev)
			if err == nil {
				break
			}
			if !errors.Is(err, persistence.ErrConflict) {
				return err
			}
		}
	}
	return nil
}

func child(t testing.TB, what, dir string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := exec.Command(exe)
	c.Env = append(os.Environ(), "TOKENKEEP_TEST_CHILD="+what, "TOKENKEEP_TEST_DIR="+dir)
	c.Env = append(c.Env, env...)
	c.Stderr = os.Stderr
	return c
}

func childDir(t testing.TB) (dir string, r *dirRing) {
	t.Helper()
	dir = t.TempDir()
	r = &dirRing{filepath.Join(dir, "keys"), func() {}}
	require.NoError(t, os.Mkdir(r.dir, 0o700))
	return dir, r
}

// Several processes start at once where nothing is stored: one key is made, and
// no line is lost.
func TestFirstSaveOfSeveralProcesses(t *testing.T) {
	const processes = 6
	dir, r := childDir(t)
	var children []*exec.Cmd
	var gates []io.WriteCloser
	for i := range processes {
		c := child(t, "first-save", dir, fmt.Sprint("TOKENKEEP_TEST_ID=", i))
		gate, err := c.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start())
		children, gates = append(children, c), append(gates, gate)
	}
	for _, g := range gates {
		g.Close()
	}
	for _, c := range children {
		require.NoError(t, c.Wait())
	}
	data, err := newFile(t, filepath.Join(dir, "cache"), r).Load(ctx)
	require.NoError(t, err)
	lines := slices.Collect(bufioLines(string(data)))
	slices.Sort(lines)
	require.Len(t, slices.Compact(lines), processes*10)
	require.Len(t, r.ids(t), 1)
}

func bufioLines(s string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for sc := bufio.NewScanner(strings.NewReader(s)); sc.Scan(); {
			if !yield(sc.Text()) {
				return
			}
		}
	}
}

// Control: writers that do not share a lock make two keys, of which one is
// never found again.
func TestFirstSaveWithoutACommonLock(t *testing.T) {
	r, dir := newRing(), t.TempDir()
	both := make(chan struct{}, 2)
	r.before = func(call string) error {
		if call == "new" {
			both <- struct{}{}
			for len(both) < 2 {
				runtime.Gosched()
			}
		}
		return nil
	}
	done := make(chan error, 2)
	for _, lock := range []string{"lock1", "lock2"} {
		f, err := New(filepath.Join(dir, "cache"), r, &Options{Lock: persistence.NewFileLock(filepath.Join(dir, lock))})
		require.NoError(t, err)
		go func() { done <- f.Check(ctx) }()
	}
	require.NoError(t, <-done)
	require.NoError(t, <-done)
	require.Len(t, r.ids(), 2)
}

// A process is killed before, in and after each call of its key source, in each
// operation that makes or deletes keys. Whatever it was about to do, the file
// opens, and after a rotation and a delete no key is left behind.
func TestKilledAtEveryStep(t *testing.T) {
	for _, what := range []string{"rotate", "delete", "check-and-save"} {
		t.Run(what, func(t *testing.T) {
			for n := 1; ; n++ {
				dir, r := childDir(t)
				path := filepath.Join(dir, "cache")
				if what != "check-and-save" {
					f := newFile(t, path, r)
					require.NoError(t, f.Save(ctx, []byte("data")))
					require.NoError(t, f.Rotate(ctx, r)) // so that there is a previous key
				}
				err := child(t, what, dir, fmt.Sprint("TOKENKEEP_TEST_KILL=", n)).Run()
				var exit *exec.ExitError
				killed := -1
				if runtime.GOOS == "windows" {
					killed = 1 // which a child that fails does not exit with
				}
				if !errors.As(err, &exit) || exit.ExitCode() != killed {
					require.NoError(t, err)
					require.Greater(t, n, 4, "the child was never killed")
					return
				}
				f := newFile(t, path, r)
				data, err := f.Load(ctx)
				if what == "rotate" || !errors.Is(err, persistence.ErrNotFound) {
					require.NoError(t, err, "killed at step %d", n)
					require.Equal(t, "data", string(data))
				}
				require.NoError(t, f.Save(ctx, []byte("after")))
				require.NoError(t, f.Rotate(ctx, r))
				require.Len(t, r.ids(t), 2, "killed at step %d: %v", n, r.ids(t))
				mustLoad(t, newFile(t, path, r), "after")
				require.NoError(t, f.Delete(ctx))
				require.Empty(t, r.ids(t), "killed at step %d", n)
			}
		})
	}
}
