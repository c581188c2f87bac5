package shell_test

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/shell"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// unprintable are paths that need $'…'.
var unprintable = []string{"/a\nb", "/a\x1b[2Jb", "/\xff\xfe'x", "/a\u202eb\\", "/a\u0085b"}

var quoted = map[string]string{
	"/srv/alice/.config": "/srv/alice/.config",
	"/srv/älice/x":       "/srv/älice/x",
	"/my files":          "'/my files'",
	"/it's":              `'/it'\''s'`,
	"/$(touch x)":        "'/$(touch x)'",
	"~x":                 "'~x'",
	"a~":                 "a~",
	"":                   "''",
	"-rf":                "./-rf",
	"- rf":               "'./- rf'",
	"/a\nb":              `$'/a\012b'`,
	"/a\u202e'":          `$'/a\342\200\256\''`,
}

func TestQuoteUnix(t *testing.T) {
	for path, want := range quoted {
		require.Equal(t, want, shell.QuoteUnix(path))
	}
	for _, path := range unprintable {
		require.NotContains(t, shell.QuoteUnix(path), path)
	}
}

func TestQuoteWindows(t *testing.T) {
	for path, want := range map[string]string{
		`C:\my files\x`:      `"C:\my files\x"`,
		`%USERPROFILE%\it's`: `"%USERPROFILE%\it's"`,
		"C:\\a\"& calc\x1b":  `"C:\a?& calc?"`,
	} {
		require.Equal(t, want, shell.QuoteWindows(path))
	}
}

// A shell reads back what was quoted, and does nothing else.
func TestShellsReadItBack(t *testing.T) {
	for _, sh := range []string{"sh", "bash"} {
		exe, err := exec.LookPath(sh)
		if runtime.GOOS == "windows" {
			return // no such shells
		}
		env.Require(t, err == nil, "needs "+sh)
		for path := range quoted {
			if sh == "sh" && strings.HasPrefix(shell.QuoteUnix(path), "$") {
				continue
			}
			out, err := exec.Command(exe, "-c", "printf %s "+shell.QuoteUnix(path)).Output()
			require.NoError(t, err)
			require.Equal(t, strings.TrimPrefix(path, "./"), strings.TrimPrefix(string(out), "./"))
		}
		if sh == "sh" {
			continue
		}
		for _, path := range unprintable {
			out, err := exec.Command(exe, "-c", "printf %s "+shell.QuoteUnix(path)).Output()
			require.NoError(t, err)
			require.Equal(t, path, string(out))
		}
	}
}
