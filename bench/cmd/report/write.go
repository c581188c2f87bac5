//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// conditions are what the figures depend on.
type conditions struct {
	benchtime            string
	commit, kernel, disk string
	processor            string
	loadBefore, loadMost float64
	busy                 bool   // with something else
	earlier              bool   // the rounds were run before
	msext, designs       string // versions
}

func describe(benchtime string) conditions {
	c := conditions{benchtime: benchtime, commit: "unknown"}
	if text, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		c.commit = strings.TrimSpace(string(text))
	}
	c.msext = version("github.com/AzureAD/microsoft-authentication-extensions-for-go/cache")
	c.designs = version("github.com/99designs/keyring")
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		c.kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Statfs_t
	c.disk = "unknown"
	if unix.Statfs(os.TempDir(), &s) == nil {
		names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
		if c.disk = names[int64(s.Type)]; c.disk == "" {
			c.disk = fmt.Sprintf("type %#x", s.Type)
		}
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`).FindSubmatch(text); m != nil {
			c.processor = string(m[1])
		}
	}
	return c
}

// version returns the version of a module that the benchmarks use.
func version(module string) string {
	text, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// write writes the report.
func write(w io.Writer, rounds []round, c conditions) error {
	var body strings.Builder
	var missed []string
	for _, t := range tables {
		m, err := t.write(&body, rounds)
		if err != nil {
			return err
		}
		missed = append(missed, m...)
	}
	fmt.Fprintf(w, "# Results\n\n")
	fmt.Fprintf(w, "Read the ratios, not the times: they are of one machine. Made by\n\n\tcd bench && %s\n\n", strings.TrimSpace("go run ./cmd/report "+strings.Join(os.Args[1:], " ")))
	fmt.Fprintf(w, "on %s at commit %s: %d rounds, interleaved, each benchmark for %s in each; medians, and the range of the ratios in brackets.\n\n", time.Now().UTC().Format(time.DateOnly), c.commit, len(rounds), c.benchtime)
	fmt.Fprintf(w, "| | |\n|---|---|\n| processor | %s, %d used |\n| system | %s %s, %s |\n| file system | %s |\n| Go | %s |\n", c.processor, runtime.NumCPU(), runtime.GOOS, c.kernel, runtime.GOARCH, c.disk, strings.TrimPrefix(runtime.Version(), "go"))
	if c.loadMost > 0 {
		fmt.Fprintf(w, "| load | %.2f before; at most %.2f, with the benchmarks' own |\n", c.loadBefore, c.loadMost)
	}
	if c.earlier {
		fmt.Fprintf(w, "\nMade of rounds that were run before. Whether the machine was quiet then is not known.\n")
	}
	if !c.earlier && !c.busy {
		fmt.Fprintf(w, "\nThe machine was quiet: it did no other work when the rounds began.\n")
	}
	if c.busy {
		fmt.Fprintf(w, "\n**The machine was busy with other work.** No ratio of times is certain, nor is a target that is met or missed by a little. Ratios of processor time suffer less.\n")
	}
	fmt.Fprintf(w, "\nThe peers are microsoft-authentication-extensions-for-go/cache %s with its plain file (msext) and 99designs/keyring %s with its encrypted file and the obvious glue. Their keyring backends need cgo or a running keyring and are not measured.\n\n", c.msext, c.designs)
	if len(missed) == 0 {
		fmt.Fprintf(w, "Every target is met.\n")
	} else {
		fmt.Fprintf(w, "Targets that are missed:\n\n")
		for _, m := range missed {
			fmt.Fprintf(w, "- %s\n", m)
		}
	}
	_, err := io.WriteString(w, body.String())
	return err
}

// write writes a table and returns the targets that it misses.
func (t table) write(w io.Writer, rounds []round) (missed []string, err error) {
	fmt.Fprintf(w, "\n## %s\n\n", t.title)
	if t.text != "" {
		fmt.Fprintf(w, "%s\n\n", t.text)
	}
	targets := false
	for _, r := range t.rows {
		targets = targets || r.target() != ""
	}
	head := []string{"", "tokenkeep"}
	if t.limit == "" && !targets {
		head[1] = "time"
	}
	if t.limit != "" {
		head = append(head, "limit: "+t.limit, "ratio")
	}
	if t.cpu {
		head = append(head, "of processor time")
	}
	if targets {
		head = append(head, "target", "")
	}
	head = append(head, t.peers...)
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range t.rows {
		ours, ok := spreadOf(rounds, r.ours.of)
		if !ok {
			return nil, fmt.Errorf("no figure of %s in %s", r.ours.bench, r.ours.unit)
		}
		cells := []string{r.what, r.ours.text(ours.median)}
		judged := ours
		if t.limit != "" {
			limit, ok := spreadOf(rounds, r.limit.of)
			if !ok && r.limit.bench != "" {
				return nil, fmt.Errorf("no figure of %s in %s", r.limit.bench, r.limit.unit)
			}
			if ok {
				quotient, _ := spreadOf(rounds, ratio(r.ours, r.limit))
				cells = append(cells, r.limit.text(limit.median), fmt.Sprintf("**%.2f** (%.2f–%.2f)", quotient.median, quotient.min, quotient.max))
				if r.value == 0 {
					judged = quotient
				}
			} else {
				cells = append(cells, "", "")
			}
		}
		if t.cpu {
			cell := ""
			if s, ok := spreadOf(rounds, ratio(r.ours.cpu(), r.limit.cpu())); ok && r.ours.unit == "" {
				cell = fmt.Sprintf("%.2f (%.2f–%.2f)", s.median, s.min, s.max)
			}
			cells = append(cells, cell)
		}
		if targets {
			verdict := ""
			if r.target() != "" {
				verdict = "met"
				if !r.met(judged.median) {
					verdict = "**missed**"
					missed = append(missed, fmt.Sprintf("%s, %s: %s, and the target is %s.", t.title, r.what, r.judged(judged.median), r.target()))
				}
			}
			cells = append(cells, r.target(), verdict)
		}
		for i := range t.peers {
			cell := ""
			if i < len(r.peers) {
				if s, ok := spreadOf(rounds, r.peers[i].of); ok {
					quotient, _ := spreadOf(rounds, ratio(r.peers[i], r.limit))
					cell = fmt.Sprintf("%s (%s)", r.peers[i].text(s.median), times(quotient.median))
				}
			}
			cells = append(cells, cell)
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
	return missed, nil
}

func (r row) target() string {
	switch {
	case r.atMost != 0:
		return fmt.Sprintf("≤ %.4g", r.atMost)
	case r.atLeast != 0:
		return fmt.Sprintf("≥ %.4g", r.atLeast)
	case r.value != 0:
		return "≤ " + r.ours.text(r.value)
	}
	return ""
}

func (r row) met(v float64) bool {
	switch {
	case r.atMost != 0:
		return v <= r.atMost
	case r.atLeast != 0:
		return v >= r.atLeast
	}
	return v <= r.value
}

func (r row) judged(v float64) string {
	if r.value != 0 {
		return r.ours.text(v)
	}
	return times(v) + " the limit"
}

// text writes a value in the unit that suits it.
func (f figure) text(v float64) string {
	switch {
	case f.unit == "B/op":
		return fmt.Sprintf("%.0f B", v)
	case f.unit != "" && f.unit != "ns/op" && !strings.HasSuffix(f.unit, "-ns"):
		return fmt.Sprintf("%.4g", v)
	}
	for _, u := range []struct {
		name string
		size float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if v >= u.size {
			return fmt.Sprintf("%.3g %s", v/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.3g ns", v)
}

func times(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f×", v)
	}
	return fmt.Sprintf("%.2g×", v)
}
