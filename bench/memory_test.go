//go:build linux

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Peak memory, as the operating system sees it: VmHWM, the largest resident set
// of a process that does nothing else, less what was resident before. So the
// data that the caller holds already does not count, and the garbage that the
// collector has not met yet does. extra/data is in units of the data's size.

var memoryParams = []param{{"size=32MB/what=load", 32 << 20}, {"size=32MB/what=save", 32 << 20}, {"size=32MB/what=merge", 32 << 20}}

var memoryTopic = topic{subjects: []subject{
	{"tokenkeep", memoryParams, peakMemory},
}}

// peak is a child's report.
type peak struct {
	Extra, Data int64
	Right       bool // the work was done, and right
}

func peakMemory(tb testing.TB, p param) task {
	do := map[string]string{"size=32MB/what=load": "load memory", "size=32MB/what=save": "save memory", "size=32MB/what=merge": "merge memory"}[p.name]
	dir := tb.TempDir()
	var got peak
	return task{
		run: func() error {
			path := filepath.Join(dir, "cache.enc")
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			c, err := start(order{Do: do, Path: path, N: p.n})
			if err != nil {
				return err
			}
			if err := c.goOn(); err != nil {
				return err
			}
			return c.report(&got)
		},
		check: func(run func() error) error {
			got = peak{}
			if err := run(); err != nil {
				return err
			}
			if !got.Right || got.Extra < got.Data/2 {
				return fmt.Errorf("%d bytes of memory for %d bytes of data, right: %v", got.Extra, got.Data, got.Right)
			}
			return nil
		},
		metrics: func() map[string]float64 {
			return map[string]float64{"extra/data": float64(got.Extra) / float64(got.Data)}
		},
	}
}

// peakOf measures what work adds to the memory, and then asks whether it was
// done right.
func peakOf(size int, work func() error, right func() (bool, error)) func() (any, error) {
	return func() (any, error) {
		before, err := resetPeak()
		if err != nil {
			return nil, err
		}
		if err := work(); err != nil {
			return nil, err
		}
		after, err := memoryStatus("VmHWM")
		if err != nil {
			return nil, err
		}
		ok, err := right()
		return peak{after - before, int64(size), ok}, err
	}
}

// resetPeak gives unused memory back and makes what is left the peak.
func resetPeak() (int64, error) {
	runtime.GC()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return 0, err
	}
	return memoryStatus("VmHWM")
}

// memoryStatus returns a line of /proc/self/status in bytes.
func memoryStatus(name string) (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB$`).FindSubmatch(status)
	if m == nil {
		return 0, errors.New("/proc/self/status does not tell " + name)
	}
	kB, err := strconv.ParseInt(string(m[1]), 10, 64)
	return kB << 10, err
}

func memoryLoad(o order) (func() (any, error), error) {
	file, err := fileAt(o.Path)
	if err != nil {
		return nil, err
	}
	want := tokens(o.N, 1)
	if err := file.Save(ctx, want); err != nil {
		return nil, err
	}
	var got []byte
	return peakOf(len(want), func() (err error) { got, err = file.Load(ctx); return err }, func() (bool, error) { return bytes.Equal(got, want), nil }), nil
}

func memorySave(o order) (func() (any, error), error) {
	file, err := fileAt(o.Path)
	if err != nil {
		return nil, err
	}
	data := tokens(o.N, 1)
	return peakOf(len(data), func() error { return file.Save(ctx, data) }, func() (bool, error) {
		got, err := file.Load(ctx)
		return bytes.Equal(got, data), err
	}), nil
}

// memoryMerge is an Export after another process has saved. What MSAL holds and
// has serialized, and what the Cache remembers of it, is there before.
func memoryMerge(o order) (func() (any, error), error) {
	file, err := fileAt(o.Path)
	if err != nil {
		return nil, err
	}
	if err := file.Save(ctx, tokens(o.N, 1)); err != nil {
		return nil, err
	}
	c, err := persistence.New(file)
	if err != nil {
		return nil, err
	}
	m := new(memory)
	if err := c.Replace(ctx, m, replaceHints); err != nil {
		return nil, err
	}
	if err := file.Save(ctx, changed(tokens(o.N, 1), 7, "theirs")); err != nil {
		return nil, err
	}
	m.data = changed(m.data, 3, "ours")
	return peakOf(len(m.data), func() error { return c.Export(ctx, m, exportHints) }, func() (bool, error) {
		got, err := file.Load(ctx)
		want := changed(changed(tokens(o.N, 1), 3, "ours"), 7, "theirs")
		if err != nil {
			return false, err
		}
		return sameCache(want, got)
	}), nil
}
