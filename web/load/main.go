//go:build linux

// Load measures a web app on real servers, and writes what it finds to a page:
//
//	cd web && go run ./load -o LOAD.md
//
// It starts a Redis and a PostgreSQL of its own on loopback, takes two to four
// minutes, and leaves nothing behind. Three kinds of figures come out: throughput and
// the slowest requests, beside what the store alone and a naive cache cost; what a
// long run keeps; and what users see of an outage. What does not depend on the
// machine, the tests check as well.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

func main() {
	out := flag.String("o", "", "`file` to write; by default standard output")
	each := flag.Duration("each", 400*time.Millisecond, "how `long` each figure of throughput is measured for, in a round")
	outage := flag.Duration("outage", 5*time.Second, "how `long` an outage lasts")
	maxLoad := flag.Float64("max-load", 0.7, "wait until the machine's `load` is below this")
	patience := flag.Duration("wait", 2*time.Minute, "how `long` to wait for that")
	flag.Parse()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	page, err := measure(*each, *outage, *maxLoad, *patience)
	switch {
	case err != nil:
	case *out == "":
		_, err = os.Stdout.Write(page)
	default:
		err = os.WriteFile(*out, page, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// run is what the parts of the program share. It stands in for a test, because the
// servers that it starts are otherwise those of tests.
type run struct {
	testing.TB
	ctx      context.Context
	cleanups []func()
	page     bytes.Buffer
}

// failed is what a run panics with, to end where it fails.
type failed struct{ error }

func (r *run) Helper()                   {}
func (r *run) Context() context.Context  { return r.ctx }
func (r *run) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *run) Errorf(f string, a ...any) { panic(failed{fmt.Errorf(strings.TrimSpace(f), a...)}) }
func (r *run) Fatalf(f string, a ...any) { r.Errorf(f, a...) }
func (r *run) Fatal(a ...any)            { panic(failed{errors.New(fmt.Sprint(a...))}) }
func (r *run) Skip(a ...any)             { r.Fatal(a...) }
func (r *run) FailNow()                  { r.Fatal("failed") }

func (r *run) must(err error) {
	if err != nil {
		r.Fatal(err)
	}
}

func (r *run) print(format string, a ...any) { fmt.Fprintf(&r.page, format, a...) }

// step tells the person who waits what is measured now.
func step(what string) { fmt.Fprintln(os.Stderr, what) }

func measure(each, outage time.Duration, maxLoad float64, patience time.Duration) (page []byte, err error) {
	// No deadline: a cache that finds one does not apply its own time limit.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer time.AfterFunc(patience+10*time.Minute, cancel).Stop()
	r := &run{ctx: ctx}
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failed)
			if !ok {
				panic(p)
			}
			err = f.error
		}
		for i := len(r.cleanups) - 1; i >= 0; i-- {
			r.cleanups[i]()
		}
	}()
	before := waitForQuiet(maxLoad, patience)
	start := time.Now()
	r.throughput(each)
	r.tabs()
	r.growth(5 * each)
	r.outages(outage)
	head := fmt.Sprintf(`# A web app under load and in an outage

Read the ratios, not the times: they are of one machine, on which clients and servers
share the processors. Made by

	cd web && %s

on %s at commit %s, in %s, on %d processors, %s.

`, strings.TrimSpace("go run ./load "+strings.Join(os.Args[1:], " ")), start.UTC().Format(time.DateOnly), commit(), time.Since(start).Round(time.Second), runtime.NumCPU(), runtime.Version())
	if before > maxLoad {
		head += fmt.Sprintf("**The machine was busy with other work** (load %.2f before, %.2f at the end). No ratio of times is certain; what is counted is.\n", before, load())
	} else {
		head += fmt.Sprintf("The machine was quiet: its load was %.2f before, and %.2f at the end, which is this program's own.\n", before, load())
	}
	return append([]byte(head), r.page.Bytes()...), nil
}

func commit() string {
	text, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// waitForQuiet waits until the load is low, but not for ever, and returns it.
func waitForQuiet(maxLoad float64, patience time.Duration) float64 {
	for end := time.Now().Add(patience); load() > maxLoad && time.Now().Before(end); {
		step(fmt.Sprintf("the load is %.2f; waiting for less than %.2f", load(), maxLoad))
		time.Sleep(5 * time.Second)
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
	fmt.Sscan(string(text), &l) //nolint:errcheck // 0 then
	return l
}
