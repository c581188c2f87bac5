package command

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

// silent is an input that nobody writes to.
type silent struct{ reading chan struct{} }

func (s silent) Read([]byte) (int, error) {
	close(s.reading)
	select {}
}

// An import that waits for its input can be interrupted, and changes nothing.
func TestImportIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	in := silent{make(chan struct{})}
	go func() {
		<-in.reading
		cancel()
	}()
	var out, errs bytes.Buffer
	code := Run(ctx, []string{"import", "app", "-dir", dir}, &Machine{Stdin: in, Stdout: &out, Stderr: &errs, Env: os.Getenv, Keyring: keyringtest.New(), Cost: cheap})
	require.Equal(t, ExitProblem, code)
	require.Equal(t, "tokenkeep: interrupted; nothing was changed.\n", errs.String())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// What MSAL libraries have written is imported, whatever stands around the object,
// and what was left out is said.
func TestImportTakesWhatWasWritten(t *testing.T) {
	const cache = `{"Account":{"a":{"home_account_id":"a","environment":"e"}}}`
	for name, test := range map[string]struct{ data, left string }{
		"as it is":                  {cache, ""},
		"a byte order mark":         {"\ufeff" + cache, ""},
		"line ends":                 {"\n" + cache + "\r\n", ""},
		"zeros after a crash":       {cache + "\x00\x00\x00\x00", ""},
		"the end of a longer cache": {cache + `"}}}` + "\x00", "Left out: 4 bytes after the end of the JSON.\n"},
		"one more byte":             {cache + "}", "Left out: 1 byte after the end of the JSON.\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, k := t.TempDir(), keyringtest.New()
			file := filepath.Join(t.TempDir(), "cache.json")
			require.NoError(t, os.WriteFile(file, []byte(test.data), 0o600))
			out, _ := runIn(t, ExitFine, k, "import", "app", file, "-dir", dir)
			require.Contains(t, out, "It has 1 account.\n"+test.left)
			require.Equal(t, test.left != "", bytes.Contains([]byte(out), []byte("Left out")))
			data, err := inFolder(t, dir, k).Load(t.Context())
			require.NoError(t, err)
			require.JSONEq(t, cache, string(data))
		})
	}
	t.Run("entries that MSAL refuses", func(t *testing.T) {
		dir, k := t.TempDir(), keyringtest.New()
		file := filepath.Join(t.TempDir(), "cache.json")
		require.NoError(t, os.WriteFile(file, []byte(`{"Account":{"a":{"home_account_id":"a","environment":"e"},"b\u001b":null},"AccessToken":{"t":{"cached_at":1.5}}}`), 0o600))
		out, _ := runIn(t, ExitFine, k, "import", "app", file, "-dir", dir)
		require.Contains(t, out, "Left out, because MSAL cannot read it:")
		require.Contains(t, out, `"AccessToken" "t"`)
		require.NotContains(t, out, "\x1b")
		data, err := inFolder(t, dir, k).Load(t.Context())
		require.NoError(t, err)
		require.JSONEq(t, `{"Account":{"a":{"home_account_id":"a","environment":"e"}}}`, string(data))
	})
	for name, data := range map[string]string{"nothing": "", "zeros": "\x00\x00", "a mark alone": "\ufeff", "null": "null", "a list": "[]", "half": `{"Account":{`, "blanks": " \n"} {
		file := filepath.Join(t.TempDir(), "cache.json")
		require.NoError(t, os.WriteFile(file, []byte(data), 0o600))
		_, errs := runIn(t, ExitProblem, keyringtest.New(), "import", "app", file, "-dir", t.TempDir())
		require.Contains(t, errs, "what is to be imported is not a token cache of an MSAL library", name)
	}
}
