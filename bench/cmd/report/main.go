//go:build linux

// Report runs all benchmarks in interleaved rounds and writes their results, as
// ratios, to RESULTS.md:
//
//	go run ./cmd/report
//
// A round runs every benchmark once; those that are compared run one after the
// other. A ratio is taken within each round, so that a disturbance that lasts
// affects both sides. The table shows the median of the rounds, and their range.
// It takes about five minutes.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 6, "how many `times` to run everything")
	benchtime := flag.String("benchtime", "100ms", "how `long` each benchmark runs in a round")
	out := flag.String("o", "RESULTS.md", "`file` to write, - for standard output")
	maxLoad := flag.Float64("max-load", 0.7, "wait until the machine's `load` is below this")
	patience := flag.Duration("wait", 10*time.Minute, "how `long` to wait for that")
	from := flag.String("from", "", "make the report of the output of earlier rounds, in this `folder`, and run nothing")
	keep := flag.String("keep", "", "keep the output of the rounds in this `folder`")
	flag.Parse()
	if err := run(*rounds, *benchtime, *out, *maxLoad, *patience, *from, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(rounds int, benchtime, out string, maxLoad float64, patience time.Duration, from, keep string) error {
	var results []round
	conditions := describe(benchtime)
	if from != "" {
		files, err := filepath.Glob(filepath.Join(from, "round-*.txt"))
		if err != nil || len(files) == 0 {
			return errors.Join(fmt.Errorf("no rounds in %s", from), err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			results = append(results, parse(text))
		}
		conditions.earlier = true
	} else {
		dir, err := os.MkdirTemp("", "bench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		binary := filepath.Join(dir, "bench.test")
		if text, err := exec.Command("go", "test", "-c", "-o", binary, ".").CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, text)
		}
		conditions.loadBefore = waitForQuiet(maxLoad, patience)
		conditions.busy = conditions.loadBefore > maxLoad
		for n := range rounds {
			fmt.Fprintf(os.Stderr, "round %d of %d\n", n+1, rounds)
			// A round's own work is a load of about 1; more is somebody else's.
			text, err := exec.Command(binary, "-test.run", "^$", "-test.bench", ".", "-test.benchtime", benchtime, "-test.timeout", "30m").CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w\n%s", err, text)
			}
			conditions.loadMost = max(conditions.loadMost, load())
			if keep != "" {
				if err := os.WriteFile(filepath.Join(keep, fmt.Sprintf("round-%d.txt", n+1)), text, 0o644); err != nil {
					return err
				}
			}
			results = append(results, parse(text))
		}
	}
	var report bytes.Buffer
	if err := write(&report, results, conditions); err != nil {
		return err
	}
	if out == "-" {
		_, err := io.Copy(os.Stdout, &report)
		return err
	}
	return os.WriteFile(out, report.Bytes(), 0o644)
}

// waitForQuiet waits until the load is low, but not for ever, and returns it.
func waitForQuiet(maxLoad float64, patience time.Duration) float64 {
	for end := time.Now().Add(patience); load() > maxLoad && time.Now().Before(end); {
		fmt.Fprintf(os.Stderr, "the load is %.2f; waiting for less than %.2f\n", load(), maxLoad)
		time.Sleep(10 * time.Second)
	}
	return load()
}

// load is the machine's load average of the last minute.
func load() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var l float64
	fmt.Sscan(string(text), &l)
	return l
}
