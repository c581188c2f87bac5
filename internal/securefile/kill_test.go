package securefile_test

import (
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// A writer is killed at any moment, many times. What is there then is the save
// that it completed last or the one in flight. The control rewrites the file in
// place: it must be caught with a torn file.
func TestKilledWriter(t *testing.T) {
	kills, most := 15, 400
	if os.Getenv("TOKENKEEP_LONG") == "1" {
		kills = 300
	}
	t.Run("Replace", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "cache")
		for i := range kills {
			started, completed := killWriter(t, "loop", path, time.Duration(i)*700*time.Microsecond)
			data, _, err := securefile.Read(t.Context(), path, limit)
			require.NoError(t, err)
			n, err := number(data)
			require.NoError(t, err)
			require.True(t, n == started || n == completed, "stored %d, completed %d, started %d", n, completed, started)
		}
		_, err := securefile.Replace(t.Context(), path, nil)
		require.NoError(t, err)
		if runtime.GOOS != "windows" { // there they are too young to be removed
			require.Equal(t, []string{"cache"}, entries(t, filepath.Dir(path)))
		}
	})
	t.Run("control", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "cache")
		for i := range most {
			killWriter(t, "loop in place", path, time.Duration(i%20)*700*time.Microsecond)
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			if _, err := number(data); err != nil {
				return // caught
			}
		}
		t.Fatalf("%d kills of a writer in place never left a torn file: this test proves nothing", most)
	})
}

// killWriter lets a child save in a loop, kills it some time after its first
// save, and returns the last save that it started and the last it completed.
func killWriter(t *testing.T, mode, path string, after time.Duration) (started, completed uint64) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, path)
	cmd.Env = append(os.Environ(), childMode+"="+mode, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	for i := 0; ; i++ {
		var buf [8]byte
		if _, err := io.ReadFull(out, buf[:]); err != nil {
			break // killed
		}
		if n := binary.BigEndian.Uint64(buf[:]); i%2 == 0 {
			started = n
		} else {
			completed = n
		}
		if i == 1 {
			time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
	}
	require.NotZero(t, completed, "the child saved nothing")
	return started, completed
}
