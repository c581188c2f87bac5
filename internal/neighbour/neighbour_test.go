//go:build unix

package neighbour

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// ended returns the number of a process that is not there any more.
func ended(t *testing.T) int {
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	return cmd.Process.Pid
}

func TestHolder(t *testing.T) {
	for note, want := range map[string]string{
		"12 tokenkeep":         "tokenkeep",
		"12 /usr/bin/az":       "MSAL Python",
		"\ufeff12 dotnet\n":    "MSAL.NET",
		"12":                   "MSAL Node",
		"{12} {/usr/bin/tool}": "the extensions for Go",
	} {
		pid, writer := Holder([]byte(note))
		require.Equal(t, 12, pid, note)
		require.Equal(t, want, writer, note)
	}
	for _, note := range []string{"", "x", "-1", "0 az", "{", "{} {}", "\ufeff"} {
		pid, writer := Holder([]byte(note))
		require.Zero(t, pid, note)
		require.Empty(t, writer, note)
	}
}

func TestLockOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.json")
	l, err := LockOf(t.Context(), path)
	require.NoError(t, err)
	require.Nil(t, l)

	pid := ended(t)
	require.NoError(t, os.WriteFile(LockPath(path), []byte(strconv.Itoa(pid)+" az"), 0o600))
	since := time.Now().Add(-time.Hour).Truncate(time.Second)
	require.NoError(t, os.Chtimes(LockPath(path), since, since))
	l, err = LockOf(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, &Lock{Since: since, PID: pid, Writer: "MSAL Python"}, l)

	f, err := os.Open(LockPath(path))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	l, err = LockOf(t.Context(), path)
	require.NoError(t, err)
	require.True(t, l.Held)

	require.NoError(t, os.Remove(LockPath(path)))
	require.NoError(t, os.WriteFile(LockPath(path), []byte(strconv.Itoa(os.Getpid())), 0o600))
	l, err = LockOf(t.Context(), path)
	require.NoError(t, err)
	require.True(t, l.Alive)
	require.Equal(t, "MSAL Node", l.Writer)

	require.NoError(t, os.Remove(LockPath(path)))
	require.NoError(t, os.Symlink(path, LockPath(path)))
	_, err = LockOf(t.Context(), path)
	require.Error(t, err)
	require.NoError(t, os.Remove(LockPath(path)))
	require.NoError(t, unix.Mkfifo(LockPath(path), 0o600))
	_, err = LockOf(t.Context(), path)
	require.Error(t, err, "and it waits for nobody")
}

// A file that is being written is waited for; one that stays half is returned as it
// is.
func TestReadWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.json")
	_, _, err := Read(t.Context(), path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte(`{"Account`), 0o600))
	done := make(chan string)
	go func() {
		raw, _, err := Read(t.Context(), path)
		if err != nil {
			raw = []byte(err.Error())
		}
		done <- string(raw)
	}()
	require.NoError(t, os.WriteFile(path, []byte(`{"Account":{}}`), 0o600))
	require.Equal(t, `{"Account":{}}`, <-done)

	require.NoError(t, os.WriteFile(path, []byte(`{"Account`), 0o600))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, old, old))
	raw, _, err := Read(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, `{"Account`, string(raw))

	require.NoError(t, os.Remove(path))
	require.NoError(t, unix.Mkfifo(path, 0o600))
	_, _, err = Read(t.Context(), path)
	require.ErrorIs(t, err, persistence.ErrUnavailable, "and it waits for nobody")
}
