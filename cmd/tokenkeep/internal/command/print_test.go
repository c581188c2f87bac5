package command

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What others wrote cannot tell a terminal anything, whatever a report does with
// it. The colours are the printer's own.
func TestPrinterQuotes(t *testing.T) {
	const bad = "a\x1b[2Jb\u202ec\u009bd\ne"
	const quoted = `a\x1b[2Jb\u202ec\u009bd\ne`
	for _, colour := range []bool{false, true} {
		var out bytes.Buffer
		p := &printer{w: &out, colour: colour}
		p.line("%s|%v|%-3s|%s", bad, storage{err: nil, Backend: "none"}, bad, p.in(red, bad))
		p.line("%s", json.RawMessage(`"\u2028`+"\u202e"+`"`))
		require.NotContains(t, out.String(), bad)
		require.NotContains(t, out.String(), "\u202e")
		require.Equal(t, 3, bytes.Count(out.Bytes(), []byte(quoted)), "%q", out.String())
		require.Equal(t, colour, bytes.Contains(out.Bytes(), []byte("\x1b[31m"+quoted+"\x1b[0m")))
	}
}

func TestPlainASCII(t *testing.T) {
	var out bytes.Buffer
	r := &doctorReport{Checks: []checkResult{{Title: "A", Status: statusOK, Summary: "a"}, {Title: "B", Status: statusProblem, Summary: "b", Findings: []finding{{Status: statusNote, What: "c"}, {Status: statusProblem, What: "d"}}}}}
	r.write(&printer{w: &out, ascii: true})
	require.Contains(t, out.String(), "[ok] A: a (0 ms)\n[x] B: b (0 ms)\n    ! c\n    x d\n")

	const text = "é✓\U0001F600\""
	encoded, err := json.Marshal(text)
	require.NoError(t, err)
	ascii := asciiJSON(encoded)
	for _, b := range ascii {
		require.Less(t, b, byte(0x80))
	}
	var back string
	require.NoError(t, json.Unmarshal(ascii, &back))
	require.Equal(t, text, back)
}

// A path below the home folder is the same for this program in every shell.
func TestExpandHome(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		home = t.TempDir()
		t.Setenv("HOME", home)
	}
	for path, want := range map[string]string{"~": home, `~\a b`: home + `\a b`, "~/a": home + "/a", "~a": "~a", filepath.Join("a", "~"): filepath.Join("a", "~"), "": ""} {
		require.Equal(t, want, expandHome(path, true))
		require.Equal(t, path, expandHome(path, false))
	}
}
