package filelock_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/test/sweep"
)

// With this variable set, the test program is a child that does one thing.
const childMode = "TOKENKEEP_TEST_CHILD"

func init() {
	if os.Getenv(childMode) != "" {
		runtime.LockOSThread() // for sweep.Begin
	}
}

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		if err := child(mode, os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child: see the tests for what the modes are good for. A child that is to wait
// waits for the end of its standard input.
func child(mode string, args []string) error {
	path := args[0]
	lock := filelock.New(path, true)
	take := func() (func() error, error) { return lock.Lock(context.Background()) }
	switch mode {
	case "deleting sections":
		take = func() (func() error, error) { return lockDeleting(path) }
		fallthrough
	case "sections":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		for range n {
			if err := section(path, take); err != nil {
				return err
			}
		}
		return nil
	case "hold":
		if _, err := take(); err != nil {
			return err
		}
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin)
		return nil
	case "count":
		return count(take)
	case "barging count":
		return count(func() (func() error, error) { return lockPolling(path) })
	case "once":
		sweep.Begin()
		unlock, err := take()
		if err != nil {
			return err
		}
		return unlock()
	}
	return fmt.Errorf("no such mode: %s", mode)
}

// section is a critical section: it fails if another one is in it.
func section(path string, take func() (func() error, error)) error {
	unlock, err := take()
	if err != nil {
		return err
	}
	marker := path + ".inside"
	f, err := os.OpenFile(marker, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("overlap: %w", err)
	}
	f.Close()
	runtime.Gosched()
	if err := os.Remove(marker); err != nil {
		return fmt.Errorf("overlap: %w", err)
	}
	return unlock()
}

// lockDeleting is what many programs do and must not: it deletes the lock file.
func lockDeleting(path string) (func() error, error) {
	f := flock.New(path)
	if err := f.Lock(); err != nil {
		return nil, err
	}
	return func() error {
		os.Remove(path)
		return f.Unlock()
	}, nil
}

// lockPolling tries again and again, without a turnstile.
func lockPolling(path string) (func() error, error) {
	f := flock.New(path)
	if _, err := f.TryLockContext(context.Background(), 50*time.Millisecond); err != nil {
		return nil, err
	}
	return f.Unlock, nil
}

// count takes the lock again and again until the end of standard input, and
// prints a line whenever it has it.
func count(take func() (func() error, error)) error {
	stop := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(stop) }()
	fmt.Println("ready")
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		unlock, err := take()
		if err != nil {
			return err
		}
		fmt.Println("x")
		if err := unlock(); err != nil {
			return err
		}
	}
}

// start starts a child. Its standard input ends when the test does, or earlier.
func start(t testing.TB, mode string, args ...string) (cmd *exec.Cmd, stdin io.Closer, stdout *bufio.Scanner) {
	t.Helper()
	cmd = command(t, mode, args...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, in, bufio.NewScanner(out)
}

func command(t testing.TB, mode string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), childMode+"="+mode, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// holder starts a child that holds the lock.
func holder(t testing.TB, path string) (cmd *exec.Cmd, stdin io.Closer) {
	t.Helper()
	cmd, stdin, out := start(t, "hold", path)
	require.True(t, out.Scan())
	require.Equal(t, "held", out.Text())
	return cmd, stdin
}

// threadsOf returns how many threads this process has, where Linux tells; else 0.
func threadsOf(t testing.TB) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	tasks, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return len(tasks)
}
