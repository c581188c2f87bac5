package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// inFolder is the cache "app" in the folder, as a program opens it.
func inFolder(t *testing.T, dir string, k keyring.Keyring) *persistence.Cache {
	t.Helper()
	c, err := tokenkeep.Open(t.Context(), tokenkeep.Config{Name: "app", Dir: dir, Keyring: k, Warn: func(fallback.Warning) {}})
	require.NoError(t, err)
	return c
}

func fill(t *testing.T, c *persistence.Cache, data string) {
	t.Helper()
	require.NoError(t, c.Update(t.Context(), func([]byte) ([]byte, error) { return []byte(data), nil }))
}

// runIn runs the program in this process and returns what it printed.
func runIn(t *testing.T, code int, k keyring.Keyring, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	got := Run(t.Context(), args, &Machine{Stdin: &bytes.Buffer{}, Stdout: &o, Stderr: &e, Env: os.Getenv, Keyring: k, Cost: cheap, Root: t.TempDir()})
	require.Equal(t, code, got, "%s%s", &o, &e)
	return o.String(), e.String()
}

// What programs save while keys are changed, one after the other, is all there
// afterwards.
func TestRotateBesideAProgram(t *testing.T) {
	dir, k := t.TempDir(), keyringtest.New()
	c := inFolder(t, dir, k)
	fill(t, c, `{"S":{}}`)
	stop, done := make(chan struct{}), make(chan struct{})
	var failures []string
	rotations := 0
	go func() {
		defer close(done)
		for {
			var out, errs bytes.Buffer
			m := &Machine{Stdin: &bytes.Buffer{}, Stdout: &out, Stderr: &errs, Env: os.Getenv, Keyring: k, Cost: cheap}
			if code := Run(t.Context(), []string{"rotate", "app", "-dir", dir}, m); code != ExitFine {
				failures = append(failures, errs.String())
			}
			rotations++
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	const saves = 200
	for i := range saves {
		require.NoError(t, c.Update(t.Context(), func(current []byte) ([]byte, error) {
			var s map[string]map[string]any
			if err := json.Unmarshal(current, &s); err != nil {
				return nil, err
			}
			s["S"][fmt.Sprint(i)] = i
			return json.Marshal(s)
		}), "save %d", i)
	}
	close(stop)
	<-done
	require.Empty(t, failures)
	require.Positive(t, rotations)

	data, err := inFolder(t, dir, k).Load(t.Context())
	require.NoError(t, err)
	var s map[string]map[string]any
	require.NoError(t, json.Unmarshal(data, &s))
	require.Len(t, s["S"], saves)
	require.Len(t, k.Items(), 2, "the key, and the one before")
	onlyItsFiles(t, dir)
}

// onlyItsFiles: the cache "app" has one lock, and there is no other cache.
func onlyItsFiles(t *testing.T, dir string) {
	t.Helper()
	all, err := scan(dir)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, "app", all[0].name)
	for _, n := range all[0].locks {
		require.True(t, n == "app.lock" || strings.HasPrefix(n, "app.lock."), n)
	}
}

// A move to plaintext that is killed between its save and its deletion leaves
// both files. The next program has everything, encrypted; and moved again,
// everything is plaintext.
func TestMoveToPlaintextKilledBetween(t *testing.T) {
	const stored, newer = `{"S":{"a":{"secret":"1"}}}`, `{"S":{"a":{"secret":"1"},"b":{"secret":"2"}}}`
	begin := func() (dir string, k *keyringtest.Keyring) {
		dir, k = t.TempDir(), keyringtest.New()
		fill(t, inFolder(t, dir, k), stored)
		p, err := newFiles("app", dir).openPlaintext()
		require.NoError(t, err)
		require.NoError(t, p.Save(t.Context(), []byte(stored)))
		return dir, k
	}
	dir, k := begin()
	c, err := tokenkeep.Open(t.Context(), tokenkeep.Config{Name: "app", Dir: dir, Keyring: k, AllowPlaintext: true, Warn: func(fallback.Warning) {}})
	require.NoError(t, err)
	got, err := c.Load(t.Context())
	require.NoError(t, err)
	require.JSONEq(t, stored, string(got))
	require.Equal(t, "encrypted", c.Describe().Backend)
	require.NoFileExists(t, filepath.Join(dir, "app.plaintext.json"))

	dir, k = begin()
	f, err := newFiles("app", dir).openEncrypted(filepath.Join(dir, "app.enc"), keyring.NewKeys(k, "tokenkeep/app"))
	require.NoError(t, err)
	require.NoError(t, f.Save(t.Context(), []byte(newer)))
	runIn(t, ExitFine, k, "move", "app", "-to", "plaintext", "-yes", "-dir", dir)
	got, err = os.ReadFile(filepath.Join(dir, "app.plaintext.json"))
	require.NoError(t, err)
	require.JSONEq(t, newer, string(got))
	require.NoFileExists(t, filepath.Join(dir, "app.enc"))
	require.Empty(t, k.Items())
	onlyItsFiles(t, dir)
}

// An error that crosses several layers is worded once, with one place and one
// remedy.
func TestExplainWordsOnce(t *testing.T) {
	locked := &persistence.Error{Op: "get", Backend: "keyring", Location: "tokenkeep/app tokenkeep key 7", Err: persistence.ErrKeyringLocked, Remedy: "Unlock it."}
	file := &persistence.Error{Op: "load", Backend: "encrypted", Location: "/x/app.enc", Err: locked, Remedy: "Unlock it."}
	for _, test := range []struct {
		err          error
		what, remedy string
	}{
		{locked, "cannot get tokenkeep/app tokenkeep key 7: the keyring is locked.", "Unlock it."},
		{file, "cannot read /x/app.enc: the keyring is locked.", "Unlock it."},
		{&persistence.Error{Op: "open", Backend: "cache", Location: "/x", Err: file}, "cannot open /x: the keyring is locked.", "Unlock it."},
		{&persistence.Error{Op: "save", Backend: "plaintext", Err: errors.New("the disk is full.")}, "cannot write plaintext: the disk is full.", ""},
		{&fallback.NoneError{Refusals: []fallback.Refusal{{Candidate: "plaintext", Err: errors.New("not permitted")}, {Candidate: "keyring", Err: file}}},
			"there is no place to keep the tokens: plaintext: not permitted; keyring: the keyring is locked.", "Unlock it."},
		{&refusal{"the two differ", "Try again.", file}, "the two differ.", "Try again."},
		{errors.New("something else"), "something else.", ""},
	} {
		what, remedy := explain(test.err)
		require.Equal(t, test.what, what)
		require.Equal(t, test.remedy, remedy)
	}
}

// Whatever would wait for a lock gives up, says who has it, and changes nothing.
func TestCommandsDoNotWaitForEver(t *testing.T) {
	t.Setenv("PASSPHRASE", planted)
	exported := filepath.Join(t.TempDir(), "exported.json")
	require.NoError(t, os.WriteFile(exported, []byte(`{"Account":{}}`), 0o600))
	for name, test := range map[string]struct {
		store string
		args  []string
	}{
		"rotate":                 {storeKeyring, []string{"rotate", "app"}},
		"passphrase":             {storePassphrase, []string{"passphrase", "app", "-passphrase-env", "PASSPHRASE", "-new-passphrase-env", "PASSPHRASE"}},
		"clear":                  {storeKeyring, []string{"clear", "app", "-yes"}},
		"import":                 {storeKeyring, []string{"import", "app", exported}},
		"import a new one":       {"", []string{"import", "app", exported}},
		"move to another key":    {storeKeyring, []string{"move", "app", "-to", "passphrase", "-new-passphrase-env", "PASSPHRASE"}},
		"move to plaintext":      {storeKeyring, []string{"move", "app", "-to", "plaintext", "-yes"}},
		"move from plaintext":    {storePlaintext, []string{"move", "app", "-to", "keyring"}},
		"move to another folder": {storeKeyring, []string{"move", "app", "-to-dir", filepath.Join(t.TempDir(), "there")}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, k := t.TempDir(), keyringtest.New()
			f := newFiles("app", dir)
			const data = `{"Account":{}}`
			switch test.store {
			case storeKeyring:
				fill(t, inFolder(t, dir, k), data)
			case storePlaintext:
				p, err := f.openPlaintext()
				require.NoError(t, err)
				require.NoError(t, p.Save(t.Context(), []byte(data)))
			case storePassphrase:
				keys := encrypted.Passphrase(func(context.Context) ([]byte, error) { return []byte(planted), nil }, &encrypted.PassphraseOptions{Cost: cheap})
				p, err := f.openEncrypted(f.encryptedPath(), keys)
				require.NoError(t, err)
				require.NoError(t, p.Save(t.Context(), []byte(data)))
			}
			unlock, err := persistence.NewFileLock(filepath.Join(dir, "app.lock")).Lock(t.Context())
			require.NoError(t, err)
			defer unlock()
			before := looked(t, dir)

			var out, errs bytes.Buffer
			m := &Machine{Stdin: &bytes.Buffer{}, Stdout: &out, Stderr: &errs, Env: os.Getenv, Keyring: k, Cost: cheap, Patience: 50 * time.Millisecond}
			code := Run(t.Context(), append(test.args, "-json", "-dir", dir), m)
			require.Equal(t, ExitProblem, code, "%s%s", &out, &errs)
			require.Contains(t, out.String(), `"class": "lock-timeout"`)
			require.Contains(t, errs.String(), persistence.ErrLockTimeout.Error())
			require.Contains(t, errs.String(), fmt.Sprintf("process %d", os.Getpid()))
			require.NotContains(t, errs.String(), planted)
			after := looked(t, dir)
			for path, text := range before {
				if strings.HasPrefix(path, filepath.Join(dir, "app.enc")) || strings.HasPrefix(path, filepath.Join(dir, "app.plaintext")) {
					require.Equal(t, text, after[path])
				}
			}
		})
	}
}

// With the files that were set aside go their keys, and with all of them what
// a killed save left, encrypted or not.
func TestClearLeavesNoKeys(t *testing.T) {
	dir, k := t.TempDir(), keyringtest.New()
	path := filepath.Join(dir, "app.enc")
	for range 3 {
		fill(t, inFolder(t, dir, k), `{"S":{"a":{}}}`)
		damage(t, path)
	}
	fill(t, inFolder(t, dir, k), `{"S":{"a":{}}}`)
	require.Len(t, k.Items(), 4)
	all, err := scan(dir)
	require.NoError(t, err)
	require.Len(t, all[0].aside, 3)
	// One whose header is damaged: nobody knows its key.
	headless := path + ".damaged-20200101T000000Z"
	require.NoError(t, os.WriteFile(headless, []byte(planted), 0o600))
	out, _ := runIn(t, ExitFine, k, "clear", "app", "-yes", "-dir", dir)
	require.Contains(t, out, headless)
	require.Empty(t, k.Items())
	all, err = scan(dir)
	require.NoError(t, err)
	require.False(t, all[0].stored())
	require.Empty(t, all[0].aside)
	onlyItsFiles(t, dir)
	runIn(t, ExitProblem, k, "clear", "app", "-yes", "-dir", dir)
}

// Nothing that was stored since a file was set aside is lost when it is put back,
// and of its own entries only those that have a newer one.
func TestRestoreMerges(t *testing.T) {
	dir, items, away := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "away")
	const before = `{"Account":{"a":{"home_account_id":"a","environment":"e","last_modification_time":"5"},"b":{"home_account_id":"b","environment":"e","last_modification_time":"5","n":"old"}},"S":{"before":{}}}`
	const since = `{"Account":{"b":{"home_account_id":"b","environment":"e","last_modification_time":"9","n":"new"},"c":{"home_account_id":"c","environment":"e"}},"S":{"since":{}}}`
	fill(t, inFolder(t, dir, keyringtest.NewDir(items)), before)
	require.NoError(t, os.Rename(items, away))
	require.NoError(t, os.Mkdir(items, 0o700))
	fill(t, inFolder(t, dir, keyringtest.NewDir(items)), since)
	keys, err := os.ReadDir(away)
	require.NoError(t, err)
	for _, key := range keys {
		require.NoError(t, os.Rename(filepath.Join(away, key.Name()), filepath.Join(items, key.Name())))
	}
	k := keyringtest.NewDir(items)
	require.Len(t, k.Items(), 2)

	out, _ := runIn(t, ExitFine, k, "restore", "app", "-dir", dir)
	require.Contains(t, out, "It has 3 accounts.")
	require.NotContains(t, out, "Still stored")
	data, err := inFolder(t, dir, k).Load(t.Context())
	require.NoError(t, err)
	require.JSONEq(t, `{"Account":{"a":{"home_account_id":"a","environment":"e","last_modification_time":"5"},"b":{"home_account_id":"b","environment":"e","last_modification_time":"9","n":"new"},"c":{"home_account_id":"c","environment":"e"}},"S":{"before":{},"since":{}}}`, string(data))
	require.Len(t, k.Items(), 1)
	onlyItsFiles(t, dir)
	runIn(t, ExitProblem, k, "restore", "app", "-dir", dir)
}

// noDelete is a keyring that deletes nothing.
type noDelete struct{ *keyringtest.Keyring }

func (noDelete) Delete(context.Context, string, string) error { return persistence.ErrUnavailable }

// Keys that a command cannot delete are named, in words and in JSON, and deleted
// as soon as that is possible.
func TestKeysThatStayAreNamed(t *testing.T) {
	t.Setenv("NEW", planted)
	for name, commands := range map[string][][]string{
		"clear":        {{"clear", "app", "-yes"}},
		"clear, JSON":  {{"clear", "app", "-yes", "-json"}},
		"to plaintext": {{"move", "app", "-to", "plaintext", "-yes"}},
		"rotate twice": {{"rotate", "app"}, {"rotate", "app"}}, // the first keeps the key for copies
		"to a passphrase, and a new one": {{"move", "app", "-to", "passphrase", "-new-passphrase-env", "NEW"},
			{"rotate", "app", "-passphrase-env", "NEW"}},
		"to a passphrase, and clear": {{"move", "app", "-to", "passphrase", "-new-passphrase-env", "NEW"}, {"clear", "app", "-yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, k := t.TempDir(), keyringtest.New()
			fill(t, inFolder(t, dir, k), `{"Account":{}}`)
			require.Len(t, k.Items(), 1)
			var first keyringtest.Item
			for first = range k.Items() {
			}
			id := strings.TrimPrefix(first.User, "tokenkeep key ")
			last := len(commands) - 1
			for _, args := range commands[:last] {
				out, _ := runIn(t, ExitFine, noDelete{k}, append(args, "-dir", dir)...)
				require.NotContains(t, out, id)
			}
			out, _ := runIn(t, ExitFine, noDelete{k}, append(commands[last], "-dir", dir)...)
			require.Contains(t, out, id)
			require.True(t, strings.Contains(out, "the key "+id+" (keyring)") || strings.Contains(out, `"leftKeys": [`), out)
			require.Contains(t, k.Items(), first)

			if _, err := os.Stat(filepath.Join(dir, "app.enc")); err != nil { // a program uses the key, or deletes it
				fill(t, inFolder(t, dir, k), `{"Account":{}}`)
			}
			out, _ = runIn(t, ExitFine, k, "clear", "app", "-yes", "-json", "-dir", dir)
			require.NotContains(t, out, "leftKeys")
			require.Empty(t, k.Items())
		})
	}
}

func damage(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	text[len(text)-1] ^= 1
	require.NoError(t, os.WriteFile(path, text, 0o600))
}

// Tokens of a plaintext save that was killed are a problem, and can be cleared
// also where nothing else is stored.
func TestTemporaryPlaintext(t *testing.T) {
	dir, k := t.TempDir(), keyringtest.New()
	left := filepath.Join(dir, ".app.plaintext.json.0.tmp")
	require.NoError(t, os.WriteFile(left, []byte(`{"secret":"`+planted+`"}`), 0o600))
	long := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(left, long, long))
	out, _ := runIn(t, ExitProblem, k, "doctor", "leftovers", "-json", "-dir", dir)
	require.Contains(t, out, `"leftovers.temporary-plaintext"`)
	out, _ = runIn(t, ExitFine, k, "clear", "app", "-yes", "-dir", dir)
	require.Contains(t, out, left)
	require.NoFileExists(t, left)
	runIn(t, ExitFine, k, "doctor", "leftovers", "-dir", dir)
}
