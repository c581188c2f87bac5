package filelock_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/test/sweep"
)

// A process dies, or a call fails, at any step of taking the lock and releasing
// it, with its files there or not: afterwards the lock is free, and two do not get
// in.
func TestLockSweep(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	for name, fresh := range map[string]bool{"files are there": false, "files are made": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := lockPath(t)
			command := func() []string {
				if fresh {
					os.Remove(path)
					os.Remove(path + ".turn")
				}
				return []string{"-E", childMode + "=once", exe, path}
			}
			l := filelock.New(path, true)
			must(t, l)()
			for _, what := range []string{sweep.Kill, sweep.EIO, sweep.EINTR, sweep.ENOLCK} {
				n := sweep.Each(t, []string{"openat", "flock", "pwrite64", "close", "fchmod"}, what, command, func(r sweep.Run) {
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
		})
	}
}
