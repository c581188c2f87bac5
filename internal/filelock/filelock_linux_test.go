package filelock_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/test/sweep"
)

// A process dies, or a call fails, at any step of taking the lock and letting it
// go: afterwards the lock is free, and two do not get in.
func TestLockSweep(t *testing.T) {
	path := lockPath(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	command := func() []string { return []string{"-E", childMode + "=once", exe, path} }
	l := filelock.New(path, true)
	for _, what := range []string{sweep.Kill, sweep.EIO, sweep.EINTR, sweep.ENOLCK} {
		n := sweep.Each(t, []string{"openat", "flock", "pwrite64", "close"}, what, command, func(r sweep.Run) {
			must(t, l)()
			if r.OK {
				return
			}
			switch r.What {
			case sweep.EINTR:
				if r.Call != "close" { // an unlock that fails is told of
					t.Errorf("%v: an interrupted call is no failure: %s", r, r.Output)
				}
			case sweep.ENOLCK:
				if r.Call == "flock" {
					require.Contains(t, string(r.Output), "no locks available", r)
				}
			}
		})
		require.Greater(t, n, 8)
	}
}
