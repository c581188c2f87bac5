package env

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// DependsOnSources is for a test that builds the program in a folder. The cache of go
// test knows the packages that a test imports and the files that it looks at, and would
// repeat an old result although the program has changed. So DependsOnSources looks at
// every Go file that the program is built of, but for those of the standard library.
func DependsOnSources(t testing.TB, folder string) {
	t.Helper()
	const format = `{{if not .Standard}}{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{end}}`
	out, err := exec.Command("go", "list", "-deps", "-f", format, folder).Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.Lines(string(out)) {
		if path = strings.TrimSpace(path); path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil { // go test remembers its size and time
			t.Fatal(err)
		}
	}
}
