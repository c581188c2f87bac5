package proof

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/sweep"
)

func init() {
	for _, step := range []string{"step", "fsync", "fsync of the folder"} {
		programs["save without "+step] = func(args []string) error { return saveWithout(args, step) }
	}
}

// saveWithout is the control: a program of few lines that saves as saveProgram
// does, and leaves out a step or, as the control of the control, none.
func saveWithout(args []string, step string) error {
	p, _ := placeOf(args)
	path := p.path() + ".json"
	report("opening")
	for n := uint64(2); ; n++ {
		report("saving", n)
		f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if _, err := f.Write(numbered(p.kind, n)); err != nil {
			return err
		}
		if step != "fsync" {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
		if step != "fsync of the folder" {
			d, err := os.Open(p.dir)
			if err != nil {
				return err
			}
			if err := d.Sync(); err != nil {
				return err
			}
			d.Close()
		}
		report("saved", n)
	}
}

// disks are the file systems that the power is cut of. On ext4 the journal is
// not committed by time alone while a test runs.
var disks = map[string]struct {
	size         int64
	options      string
	mkfs         []string
	keepsRenamed bool // flushes a file when it is renamed over another one
}{
	"ext4":                  {64 << 20, "commit=300", mkfsExt4, true},
	"ext4, noauto_da_alloc": {64 << 20, "commit=300,noauto_da_alloc", mkfsExt4, false},
	"ext4, data=writeback":  {64 << 20, "commit=300,noauto_da_alloc,data=writeback", mkfsExt4, false},
	"xfs":                   {320 << 20, "noatime", []string{"mkfs.xfs", "-q", "-f"}, false},
}

var mkfsExt4 = []string{"mkfs.ext4", "-q", "-F"}

// The power is cut after each system call of a save, a first save, a rotation
// and a move, when they are done, and while a process saves in a loop, on ext4
// and XFS. What is stored then is the old data or the new, whole, and the new
// if they were acknowledged.
func TestPowerCut(t *testing.T) {
	onlyLong(t)
	env.Require(t, os.Geteuid() == 0, "needs root, to mount file systems")
	for name, disk := range disks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !ownMounts(t) {
				return
			}
			v := newImage(t, filepath.Join(t.TempDir(), "image"), disk.size, disk.options, disk.mkfs...)
			for _, act := range []string{"save", "first save", "rotate", "move"} {
				t.Run(act, func(t *testing.T) { cutAtEveryCall(t, v, act) })
			}
			for _, kind := range []string{encryptedFile, plaintextFile} {
				t.Run("random, "+kind, func(t *testing.T) {
					rnd := random(t)
					for range 20 {
						require.NoError(t, cutWhileSaving(t, v, kind, "save", rnd))
					}
				})
			}
			for _, step := range []string{"step", "fsync", "fsync of the folder"} {
				t.Run("control, without "+step, func(t *testing.T) {
					rnd, caught, err := random(t), 0, error(nil)
					for range 20 {
						if bad := cutWhileSaving(t, v, plaintextFile, "save without "+step, rnd); bad != nil {
							caught, err = caught+1, bad
						}
					}
					t.Logf("caught %d times of 20, the last time with: %v", caught, err)
					switch {
					case step == "step":
						require.Zero(t, caught, "the controls are not only caught for what they leave out")
					case step != "fsync" || !disk.keepsRenamed:
						require.NotZero(t, caught, "the control was not caught: this test proves nothing")
					}
				})
			}
		})
	}
}

// cutAtEveryCall cuts the power when the act is killed before each of its
// system calls, and also when it is done.
func cutAtEveryCall(t *testing.T, v *volume, name string) {
	a := acts[name]
	p := newPlace(t, a.kind)
	p.dir = filepath.Join(v.dir, "tokens")
	exe, err := executable()
	require.NoError(t, err)
	prepare := func() {
		v.clear(p.dir)
		require.NoError(t, removeKeys(p))
		require.NoError(t, a.before(p))
	}
	check := func(what string, done bool) {
		v.cut()
		v.restart()
		if err := a.check(t, p, done); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	cuts := sweep.Each(t, sweep.FileCalls, sweep.Kill, func() []string {
		prepare()
		return append([]string{"-E", programVariable + "=sweep", exe}, p.args(name)...)
	}, func(r sweep.Run) { check(r.String(), false) })
	for range 20 {
		prepare()
		start(t, "sweep", p.args(name)...).wait()
		check("done", true)
	}
	t.Logf("%d cuts before a call, 20 after all", cuts)
}

// cutWhileSaving cuts the power some time after a process has begun to save in
// a loop, and returns what is wrong then. What is acknowledged after the cut
// does not count: a power cut leaves nobody to do so, and an fsync that meets a
// shutdown half-way may succeed on XFS.
func cutWhileSaving(t *testing.T, v *volume, kind, program string, rnd *rand.Rand) error {
	p := newPlace(t, kind)
	p.dir = filepath.Join(v.dir, "tokens")
	v.clear(p.dir)
	require.NoError(t, p.save(numbered(kind, 1)))
	w := start(t, program, p.args()...)
	var mu sync.Mutex
	s, enough, ended := saves{1, 1}, make(chan struct{}), make(chan struct{})
	n := 2 + rnd.IntN(8)
	go func() {
		defer close(ended)
		for i := 1; ; i++ {
			line, ok := w.line()
			if !ok {
				return
			}
			mu.Lock()
			s.add(line)
			mu.Unlock()
			if i == n {
				close(enough)
			}
		}
	}()
	select {
	case <-enough:
	case <-ended:
		w.wait()
	}
	<-time.After(time.Duration(rnd.IntN(5000)) * time.Microsecond)
	mu.Lock()
	acknowledged := s.completed
	mu.Unlock()
	v.cut()
	w.cmd.Process.Kill()
	<-ended
	w.rest() //nolint:errcheck // it may have met the error of a disk that is gone
	v.restart()
	data, err := p.load()
	if err != nil {
		return err
	}
	stored, err := numberOf(kind, data)
	if err != nil {
		return err
	}
	if stored < acknowledged || stored > s.started {
		return fmt.Errorf("stored is %d; %d was acknowledged, and %d begun", stored, acknowledged, s.started)
	}
	if err := p.save(numbered(kind, 1)); err != nil {
		return err
	}
	if temps := temporary(dirFiles(t, p.dir)); len(temps) > 0 {
		return fmt.Errorf("temporary files: %v", temps)
	}
	return nil
}
