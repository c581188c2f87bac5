package securefile_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// startChild starts a child that prints a line when it is ready, and runs until
// its standard input is closed. end closes that, and returns how it ended.
func startChild(t *testing.T, mode, path string) (end func() error) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, path)
	cmd.Env = append(os.Environ(), childMode+"="+mode, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n')
	require.NoError(t, err)
	return func() error {
		in.Close()
		io.Copy(os.Stderr, lines)
		return cmd.Wait()
	}
}

// On Windows a file cannot be replaced while a process has it open in the usual
// way. That mostly lasts for a moment, so it is tried again; where it does not
// end, the old content stays.
func TestFileThatAnotherProcessHasOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	_, err := securefile.Replace(t.Context(), path, []byte("old"))
	require.NoError(t, err)
	end := startChild(t, "hold", path)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/5)
	defer cancel()
	_, err = securefile.Replace(ctx, path, []byte("new"))
	if runtime.GOOS == "windows" {
		var re *securefile.ReplaceError
		require.ErrorAs(t, err, &re)
		require.Equal(t, "rename", re.Step)
		require.Equal(t, securefile.Old, re.Stored)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var open *securefile.Error
		require.ErrorAs(t, err, &open)
		require.Contains(t, open.Reason, "kept open by another program")
		require.NotEmpty(t, open.Remedy())
		data, _, err := securefile.Read(t.Context(), path, limit)
		require.NoError(t, err)
		require.Equal(t, "old", string(data))
		require.Equal(t, []string{"cache"}, entries(t, filepath.Dir(path)), "nothing is left over")
	} else {
		require.NoError(t, err)
	}

	done := make(chan error)
	go func() {
		// It ends by the context of the test at the latest.
		_, err := securefile.Replace(t.Context(), path, []byte("newer"))
		done <- err
	}()
	for over := false; !over; { // until the new file is there, and only its renaming is left
		for _, name := range entries(t, filepath.Dir(path)) {
			over = over || strings.HasSuffix(name, ".tmp")
		}
		select {
		case err := <-done:
			require.NoError(t, err)
			require.NotEqual(t, "windows", runtime.GOOS, "replaced while it was open")
			require.NoError(t, end())
			return
		default:
		}
	}
	require.NoError(t, end())
	require.NoError(t, <-done)
	data, _, err := securefile.Read(t.Context(), path, limit)
	require.NoError(t, err)
	require.Equal(t, "newer", string(data))
}

// Processes that read all the time keep no writer from its work, and see whole
// files.
func TestReadersOfOtherProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	_, err := securefile.Replace(t.Context(), path, numbered(1))
	require.NoError(t, err)
	readers := 3
	if runtime.GOOS == "windows" {
		readers = 1 // more leave hardly a moment where the file is not open
	}
	var ends []func() error
	for range readers {
		ends = append(ends, startChild(t, "read loop", path))
	}
	for n := range uint64(20) {
		_, err := securefile.Replace(t.Context(), path, numbered(n))
		require.NoError(t, err)
	}
	for _, end := range ends {
		require.NoError(t, end())
	}
}
