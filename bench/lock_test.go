//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// The lock between processes: each takes it, keeps it for a millisecond, lets it
// go and comes again at once. One process alone is the limit.

var lockTopic = topic{subjects: []subject{
	{"limit", []param{{"section=1ms", 1}}, lockContest(1)},
	{"tokenkeep", []param{{"section=1ms", 1}}, lockContest(8)},
}}

const (
	section  = time.Millisecond
	contests = time.Second // how long one lasts
)

// sections is a process's report.
type sections struct {
	Waits []time.Duration // of each section, for the lock
}

func lockContest(processes int) func(testing.TB, param) task {
	return func(tb testing.TB, _ param) task {
		path := filepath.Join(tb.TempDir(), "cache.lock")
		var waits []time.Duration
		return task{
			run: func() error {
				waits = nil
				if err := os.WriteFile(path+".count", []byte("0"), 0o600); err != nil {
					return err
				}
				all, err := startAll(processes, order{Do: "lock", Path: path})
				if err != nil {
					return err
				}
				for _, c := range all {
					err = errors.Join(err, c.goOn())
				}
				for _, c := range all {
					var s sections
					err = errors.Join(err, c.report(&s))
					waits = append(waits, s.Waits...)
				}
				return err
			},
			// Each section has added one to a number in a file, by reading and
			// writing it: if two were ever in at once, one is missing.
			check: func(run func() error) error {
				waits = nil
				if err := run(); err != nil {
					return err
				}
				n, err := readCount(path)
				if err == nil && (n == 0 || n != len(waits)) {
					err = fmt.Errorf("%d sections counted %d", len(waits), n)
				}
				return err
			},
			metrics: func() map[string]float64 {
				slices.Sort(waits)
				median, longest := waits[len(waits)/2], waits[len(waits)-1]
				return map[string]float64{
					"sections/s":     float64(len(waits)) / contests.Seconds(),
					"median-wait-ns": float64(median),
					"max-wait-ns":    float64(longest),
					"max/median":     float64(longest) / float64(median),
				}
			},
		}
	}
}

func lockChild(o order) (func() (any, error), error) {
	lock := persistence.NewFileLock(o.Path)
	unlock, err := lock.Lock(ctx) // the files are made, and the code is loaded
	if err != nil {
		return nil, err
	}
	return func() (any, error) {
		var s sections
		end := time.Now().Add(contests)
		ctx, cancel := context.WithDeadline(ctx, end)
		defer cancel()
		for {
			asked := time.Now()
			unlock, err := lock.Lock(ctx)
			if errors.Is(err, persistence.ErrLockTimeout) && !time.Now().Before(end) {
				return s, nil
			}
			if err != nil {
				return nil, err
			}
			had := time.Now()
			s.Waits = append(s.Waits, had.Sub(asked))
			n, err := readCount(o.Path)
			if err == nil {
				err = os.WriteFile(o.Path+".count", []byte(strconv.Itoa(n+1)), 0o600)
			}
			for time.Since(had) < section { // work, as others have the other processors
			}
			if err := errors.Join(err, unlock()); err != nil {
				return nil, err
			}
		}
	}, unlock()
}

func readCount(lock string) (int, error) {
	text, err := os.ReadFile(lock + ".count")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}
