// Draw draws the pictures of README.md: docs/architecture.svg, and
// docs/measured.svg from the tables of bench/RESULTS.md.
//
//	cd bench && go run ./cmd/draw
package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "draw:", err)
		os.Exit(1)
	}
}

// run draws, from the module's folder.
func run(bench string) error {
	pictures, err := draw(bench)
	if err != nil {
		return err
	}
	for name, svg := range pictures {
		if err := os.WriteFile(filepath.Join(bench, "..", "docs", name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// draw returns the pictures by their names.
func draw(bench string) (map[string]string, error) {
	results, err := os.ReadFile(filepath.Join(bench, "RESULTS.md"))
	if err != nil {
		return nil, err
	}
	measured, err := drawMeasured(string(results))
	if err != nil {
		return nil, err
	}
	return map[string]string{"architecture.svg": drawArchitecture(), "measured.svg": measured}, nil
}

// canvas is an SVG that follows the reader's light or dark mode.
type canvas struct {
	strings.Builder
}

func newCanvas(width, height int, title string) *canvas {
	c := &canvas{}
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">
<style>
text { font: 14px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #59636e }
.box { fill: #f6f8fa; stroke: #59636e }
.own { fill: #ddf4ff; stroke: #0969da }
.bar0 { fill: #0969da } .bar1 { fill: #8c959f } .bar2 { fill: #c8d1da }
.line { stroke: #59636e; fill: none }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .small { fill: #9198a1 }
.box { fill: #151b23; stroke: #9198a1 } .own { fill: #0c2d6b; stroke: #58a6ff }
.bar0 { fill: #58a6ff } .bar1 { fill: #768390 } .bar2 { fill: #444c56 }
.line { stroke: #9198a1 }
}
</style>
`, width, height, width, height, html.EscapeString(title))
	return c
}

func (c *canvas) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(c, `<text x="%.0f" y="%.0f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(s))
}

func (c *canvas) box(x, y, width, height float64, class, title, note string) {
	fmt.Fprintf(c, `<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="6" class="%s"/>`+"\n", x, y, width, height, class)
	if note == "" {
		c.text(x+width/2, y+height/2+5, "", "middle", title)
		return
	}
	c.text(x+width/2, y+height/2-4, "", "middle", title)
	c.text(x+width/2, y+height/2+14, "small", "middle", note)
}

func (c *canvas) down(x, from, to float64) {
	fmt.Fprintf(c, `<path d="M%.0f %.0f V%.0f m-4 -6 l4 6 l4 -6" class="line"/>`+"\n", x, from, to)
}

func (c *canvas) end() string { return c.String() + "</svg>\n" }

func drawArchitecture() string {
	c := newCanvas(760, 372, "How tokenkeep stands between a program and the places where tokens are kept")
	for i, who := range [...][2]string{
		{"MSAL Go", "public, confidential"}, {"golang.org/x/oauth2", "any provider"}, {"Azure SDK for Go", "azcore"}, {"your own secrets", "any bytes"},
	} {
		x := 10 + float64(i)*187
		c.box(x, 10, 177, 48, "box", who[0], who[1])
		c.down(x+88, 58, 82)
	}
	for i, part := range [...][2]string{
		{"ExportReplace", "Cache, Partitioned"}, {"tokensource", "refreshed once for all"}, {"azcredential", "a module of its own"}, {"Entries", "beside the tokens"},
	} {
		c.box(10+float64(i)*187, 82, 177, 48, "own", part[0], part[1])
	}
	c.down(380, 130, 154)
	c.box(10, 154, 738, 58, "own", "persistence", "revisions: nothing is read while nothing changes · three-way merge · sign-outs stick · one lock for all processes")
	for i, part := range [...][2]string{
		{"encrypted", "a file, AES-256-GCM"}, {"keyring", "one item"}, {"fallback", "plaintext, with a warning"}, {"web", "Redis, SQL, session"},
	} {
		x := 10 + float64(i)*187
		c.down(x+88, 212, 236)
		c.box(x, 236, 177, 48, "own", part[0], part[1])
	}
	c.down(98, 284, 308)
	c.box(10, 308, 738, 54, "box", "the key of the encrypted file", "the OS keyring · DPAPI · a passphrase · the program's own key · the Linux kernel's keyring")
	return c.end()
}

// chosen are the rows of RESULTS.md that are drawn.
var chosen = []struct{ section, row, label string }{
	{"A warm Replace", "10 KB", "Nothing has changed (10 KB)"},
	{"AcquireTokenSilent, answered from the cache", "1 account", "A silent token, 1 account"},
	{"AcquireTokenSilent, answered from the cache", "1,000 accounts", "A silent token, 1,000 accounts"},
	{"A cold Load, the key in memory", "1 MB", "The first load of 1 MB"},
	{"A Save, encrypted and durable", "1 MB", "A save of 1 MB"},
}

var (
	ownRatio  = regexp.MustCompile(`\*\*([0-9.]+)\*\*`)
	peerRatio = regexp.MustCompile(`\(([0-9.]+)×\)`)
)

// ratios returns what a row of the results says of tokenkeep, msext and
// 99designs, as multiples of the limit; 0 where nothing was measured.
func ratios(results, section, row string) (r [3]float64, err error) {
	_, after, ok := strings.Cut(results, "\n## "+section+"\n")
	if !ok {
		return r, fmt.Errorf("RESULTS.md has no section %q", section)
	}
	after, _, _ = strings.Cut(after, "\n## ")
	for _, line := range strings.Split(after, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		if strings.TrimSpace(cells[0]) != row {
			continue
		}
		m := ownRatio.FindStringSubmatch(line)
		if m == nil || len(cells) < 3 {
			return r, fmt.Errorf("RESULTS.md, %q: the row %q has no ratio", section, row)
		}
		if r[0], err = strconv.ParseFloat(m[1], 64); err != nil {
			return r, err
		}
		// The last two columns; the last one may be empty, and then Trim has cut it.
		all := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
		for i, cell := range all[len(all)-2:] {
			if m := peerRatio.FindStringSubmatch(cell); m != nil {
				if r[i+1], err = strconv.ParseFloat(m[1], 64); err != nil {
					return r, err
				}
			}
		}
		return r, nil
	}
	return r, fmt.Errorf("RESULTS.md, %q: no row %q", section, row)
}

func drawMeasured(results string) (string, error) {
	const left, width, least, most = 240.0, 470.0, 0.25, 20000.0
	height := 62 + 66*len(chosen)
	c := newCanvas(760, height, "Times as multiples of the machine's limit, on a logarithmic scale")
	at := func(ratio float64) float64 {
		return left + width*math.Log(ratio/least)/math.Log(most/least)
	}
	c.text(10, 20, "small", "start", "Times as multiples of the machine's limit (a stat, MSAL alone, read and decrypt, write and flush). Less is better;")
	c.text(10, 36, "small", "start", "logarithmic. The peers' saves flush nothing, and msext's file is not encrypted. From bench/RESULTS.md.")
	fmt.Fprintf(c, `<path d="M%.0f 46 V%d" class="line" stroke-dasharray="3 3"/>`+"\n", at(1), height-8)
	for i, row := range chosen {
		r, err := ratios(results, row.section, row.row)
		if err != nil {
			return "", err
		}
		y := 58 + 66*float64(i)
		c.text(left-12, y+30, "", "end", row.label)
		for n, name := range [...]string{"tokenkeep", "msext", "99designs"} {
			if r[n] == 0 {
				continue
			}
			end := at(r[n])
			fmt.Fprintf(c, `<rect x="%.0f" y="%.0f" width="%.0f" height="14" class="bar%d"/>`+"\n", left, y+18*float64(n), end-left, n)
			c.text(end+6, y+18*float64(n)+11, "small", "start", name+" "+strconv.FormatFloat(r[n], 'f', -1, 64)+"×")
		}
	}
	return c.end(), nil
}
