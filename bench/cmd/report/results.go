//go:build linux

package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// round is the output of one run of everything: benchmark, unit, value.
type round map[string]map[string]float64

var processors = regexp.MustCompile(`-\d+$`)

// parse reads the lines of benchmarks in the output of a test binary.
func parse(output []byte) round {
	r := round{}
	for line := range strings.Lines(string(output)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(strings.TrimPrefix(f[0], "Benchmark"), "")
		r[name] = map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				r[name][f[i+1]] = v
			}
		}
	}
	return r
}

// figure is one value of a benchmark.
type figure struct {
	bench string // without "Benchmark"
	unit  string // "" means ns/op
}

func (f figure) of(r round) (float64, bool) {
	unit := f.unit
	if unit == "" {
		unit = "ns/op"
	}
	v, ok := r[f.bench][unit]
	return v, ok
}

// cpu is the processor's time of the same benchmark.
func (f figure) cpu() figure { return figure{f.bench, "cpu-ns/op"} }

// spread is a figure over the rounds.
type spread struct{ min, median, max float64 }

func spreadOf(rounds []round, value func(round) (float64, bool)) (s spread, ok bool) {
	var vs []float64
	for _, r := range rounds {
		if v, ok := value(r); ok {
			vs = append(vs, v)
		}
	}
	if len(vs) == 0 {
		return s, false
	}
	slices.Sort(vs)
	n := len(vs)
	return spread{vs[0], (vs[(n-1)/2] + vs[n/2]) / 2, vs[n-1]}, true
}

func ratio(a, b figure) func(round) (float64, bool) {
	return func(r round) (float64, bool) {
		x, ok := a.of(r)
		y, ok2 := b.of(r)
		return x / y, ok && ok2 && y != 0
	}
}
