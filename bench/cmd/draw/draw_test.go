package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The pictures are those that the results of today give.
func TestPicturesAreCurrent(t *testing.T) {
	pictures, err := draw(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range pictures {
		got, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("docs/%s is not current: cd bench && go run ./cmd/draw", name)
		}
		for d := xml.NewDecoder(strings.NewReader(want)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(name, err)
			}
		}
	}
}

func TestRatios(t *testing.T) {
	const results = "\n## A\n\n|  | x |\n|---|---|\n| 1 MB | 3 µs | 2 µs | **1.53** (1.3–1.6) | ≤ 1.5 | met |  | 3.5 µs (1.6×) | 36 ms (17335×) |\n| 2 MB | 3 µs | 2 µs | **1.1** | | | | 3.5 µs (1.6×) |  |\n\n## B\n"
	for row, want := range map[string][3]float64{"1 MB": {1.53, 1.6, 17335}, "2 MB": {1.1, 1.6, 0}} {
		if got, err := ratios(results, "A", row); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", row, got, err, want)
		}
	}
	for _, missing := range [][2]string{{"C", "1 MB"}, {"A", "3 MB"}, {"B", "1 MB"}} {
		if got, err := ratios(results, missing[0], missing[1]); err == nil {
			t.Errorf("%v: %v, want an error", missing, got)
		}
	}
}
