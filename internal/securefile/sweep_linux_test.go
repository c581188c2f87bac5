package securefile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/test/sweep"
)

// childCommand is the command line of a child, under env as strace starts it.
func childCommand(t testing.TB, mode string, args ...string) func() []string {
	exe, err := os.Executable()
	require.NoError(t, err)
	return func() []string {
		return append([]string{"-E", childMode + "=" + mode, exe}, args...)
	}
}

// Every system call of a Replace fails, or is the last thing the process lives
// to do. What is stored is the old content or the new one; the exit status and
// the error say which; the next Replace works and leaves nothing behind.
func TestReplaceSweep(t *testing.T) {
	for _, what := range []string{sweep.Kill, sweep.EIO, sweep.ENOSPC, sweep.EINTR} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			bad, tries := sweepWrites(t, "replace", what)
			require.Empty(t, bad)
			require.Greater(t, tries, 10)
		})
	}
	t.Run("control", func(t *testing.T) {
		t.Parallel()
		bad, _ := sweepWrites(t, "in place", sweep.Kill)
		require.NotEmpty(t, bad, "a writer in place was never caught: this test proves nothing")
	})
}

func sweepWrites(t *testing.T, mode, what string) (bad []string, tries int) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cache")
	const old, fresh = "what was there before", "what is there now"
	reset := func() {
		_, err := securefile.Replace(t.Context(), path, []byte(old))
		require.NoError(t, err)
		require.Equal(t, []string{"cache"}, entries(t, dir))
	}
	reset()
	command := childCommand(t, mode, path, fresh)
	tries = sweep.Each(t, sweep.FileCalls, what, func() []string { reset(); return command() }, func(r sweep.Run) {
		data, _, err := securefile.Read(t.Context(), path, limit)
		stored := map[string]string{old: "old", fresh: "new"}[string(data)]
		told := string(r.Output)
		switch {
		case err != nil, stored == "":
			bad = append(bad, r.String()+": torn: "+string(data))
		case r.OK && stored != "new":
			bad = append(bad, r.String()+": success, and the old content")
		case strings.Contains(told, "stored=old") && stored != "old", strings.Contains(told, "stored=new") && stored != "new":
			bad = append(bad, r.String()+": the error is wrong: "+told)
		case what == sweep.EINTR && !r.OK:
			bad = append(bad, r.String()+": an interrupted call is no failure: "+told)
		case what != sweep.Kill && mode == "replace" && len(entries(t, dir)) != 1 && r.Call != "unlinkat":
			bad = append(bad, r.String()+": left behind: "+strings.Join(entries(t, dir), " "))
		}
		if err != nil || stored == "" {
			os.Remove(path)
		}
	})
	return bad, tries
}

// The same for Remove: either the file is there, whole, or it is not.
func TestRemoveSweep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cache")
	reset := func() {
		_, err := securefile.Replace(t.Context(), path, []byte("x"))
		require.NoError(t, err)
		leftover(t, dir, "cache", "0")
	}
	for _, what := range []string{sweep.Kill, sweep.EIO} {
		reset()
		command := childCommand(t, "remove", path)
		sweep.Each(t, []string{"openat", "unlinkat", "fsync", "flock"}, what, func() []string { reset(); return command() }, func(r sweep.Run) {
			data, _, err := securefile.Read(t.Context(), path, limit)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				require.NotContains(t, string(r.Output), "stored=old", r)
			case err == nil && string(data) == "x":
				require.False(t, r.OK, "%v: success, and the file is there", r)
			default:
				t.Errorf("%v: %v", r, err)
			}
		})
	}
}

// The order that makes a Replace durable, read off the system calls.
func TestReplaceOrder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cache")
	_, err := securefile.Replace(t.Context(), path, []byte("old"))
	require.NoError(t, err)
	lines := sweep.Trace(t, []string{"openat", "write", "fsync", "close", "rename", "renameat", "renameat2"}, childCommand(t, "replace", path, "new content")())
	var steps []string
	for _, step := range []struct{ name, pattern string }{
		{"create", `openat\(.*/\.cache\.0\.tmp", .*O_CREAT\|O_EXCL.*, 0600`},
		{"write", `write\(\d+<.*\.tmp>, "new content"`},
		{"fsync", `fsync\(\d+<.*\.tmp>`},
		{"close", `close\(\d+<.*\.tmp>`},
		{"rename", `rename.*\.tmp", .*/cache"`},
		{"fsync folder", `fsync\(\d+<` + regexp.QuoteMeta(dir) + `>`},
	} {
		matcher := regexp.MustCompile(step.pattern)
		for len(lines) > 0 && !matcher.MatchString(lines[0]) {
			lines = lines[1:]
		}
		if len(lines) > 0 {
			steps = append(steps, step.name)
		}
	}
	require.Equal(t, []string{"create", "write", "fsync", "close", "rename", "fsync folder"}, steps)
}

// What a Replace costs does not grow with the folder. The control reads the
// folder first.
func TestCostDoesNotGrowWithTheFolder(t *testing.T) {
	calls := func(mode string, others int) int {
		dir := t.TempDir()
		for i := range others {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "of another "+strconv.Itoa(i)), nil, 0o600))
		}
		leftover(t, dir, "cache", "1")
		lines := sweep.Trace(t, []string{"getdents64", "openat", "newfstatat", "fstat", "fstatat64", "lstat", "stat", "statx", "unlink", "unlinkat", "rename", "renameat", "renameat2", "flock"},
			childCommand(t, mode, filepath.Join(dir, "cache"), "content")())
		require.NoFileExists(t, filepath.Join(dir, ".cache.1.tmp"), "what was left behind is removed all the same")
		return len(lines)
	}
	const many = 5000
	require.Equal(t, calls("replace", 1), calls("replace", many))
	require.Greater(t, calls("look and replace", many), calls("look and replace", 1), "calls that read a folder are not counted: this test proves nothing")
}
