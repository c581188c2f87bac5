package keyring

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() { programs["count"] = countProgram }

// dirKeyring is set by the external test package, which may import keyringtest.
var dirKeyring func(dir string) Keyring

// SetDirKeyring is for the external test package.
func SetDirKeyring(f func(string) Keyring) { dirKeyring = f }

// limited takes no more for an item than Windows.
type limited struct{ Keyring }

func (limited) ItemLimit(string, string) int { return 2560 }

// countProgram adds n to the number that is stored, one by one. The value is
// padded, so that it is split over several items.
func countProgram(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	v, err := New(limited{dirKeyring(args[0])}, "app", "alice", persistence.NewFileLock(filepath.Join(args[0], "cache.lock")))
	if err != nil {
		return err
	}
	lock := v.(persistence.Locker)
	ctx := context.Background()
	for range n {
		unlock, err := lock.Lock(ctx)
		if err != nil {
			return err
		}
		data, rev, err := v.LoadRevision(ctx)
		if err != nil && rev != "" {
			return err
		}
		count, _ := strconv.Atoi(string(bytes.TrimRight(data, " ")))
		if _, err := v.SaveIf(ctx, fmt.Appendf(nil, "%-6000d", count+1), rev); err != nil {
			return err
		}
		if err := unlock(); err != nil {
			return err
		}
	}
	return nil
}

func TestProcessesLoseNoUpdate(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	require.NoError(t, err)
	const processes, each = 4, 25
	running := make([]*exec.Cmd, processes)
	for i := range running {
		running[i] = exec.CommandContext(t.Context(), exe, dir, strconv.Itoa(each))
		running[i].Env = append(os.Environ(), "TOKENKEEP_TEST_PROGRAM=count", "GORACE=atexit_sleep_ms=0")
		running[i].Stderr = os.Stderr
		require.NoError(t, running[i].Start())
	}
	for _, p := range running {
		require.NoError(t, p.Wait())
	}
	p, err := New(dirKeyring(dir), "app", "alice", persistence.NewFileLock(filepath.Join(dir, "cache.lock")))
	require.NoError(t, err)
	data, err := p.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(processes*each), string(bytes.TrimRight(data, " ")))
}
