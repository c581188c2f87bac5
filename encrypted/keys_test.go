package encrypted

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestKeyText(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i * 37) // has characters in which the alphabets differ
	}
	std, url := base64.StdEncoding.EncodeToString(key), base64.URLEncoding.EncodeToString(key)
	require.NotEqual(t, std, url)
	for _, s := range []string{std, url, std[:43], url[:43], std + "\n", " \t" + url + "\r\n"} {
		got, ok := decodeKey([]byte(s))
		require.True(t, ok, s)
		require.Equal(t, key, got)
	}
	for _, s := range []string{"", "=", std + "=", std[:42], std + "AAAA", std[:20] + "\n" + std[20:], std[:20] + " " + std[20:],
		hex.EncodeToString(key), string(key), std[:42] + "/", "!" + std[1:]} {
		_, ok := decodeKey([]byte(s))
		require.False(t, ok, s)
	}
}

// givenSources are the sources of a key that somebody else keeps, with a way to
// set what it says; nil takes the key away.
func givenSources(t *testing.T) map[string]struct {
	source KeySource
	set    func(text *string)
} {
	file := filepath.Join(t.TempDir(), "key")
	exe, err := os.Executable()
	require.NoError(t, err)
	t.Setenv("TOKENKEEP_TEST_CHILD", "print-key")
	type s = struct {
		source KeySource
		set    func(text *string)
	}
	setenv := func(name string) func(*string) {
		return func(text *string) {
			if text == nil {
				os.Unsetenv(name)
			} else {
				t.Setenv(name, *text)
			}
		}
	}
	return map[string]s{
		"env": {Env("TOKENKEEP_TEST_KEY"), setenv("TOKENKEEP_TEST_KEY")},
		"file": {KeyFile(file), func(text *string) {
			if text == nil {
				require.NoError(t, os.Remove(file))
			} else {
				require.NoError(t, os.WriteFile(file, []byte(*text), 0o600))
			}
		}},
		"command": {Command(exe), setenv("TOKENKEEP_TEST_PRINT")},
	}
}

func TestGivenKeys(t *testing.T) {
	one, two, no := base64.StdEncoding.EncodeToString(randomKey()), base64.StdEncoding.EncodeToString(randomKey()), "no key"
	for name, s := range givenSources(t) {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, name, s.source.Source())
			path := tempPath(t)
			s.set(&no)
			requireError(t, "unavailable", newFile(t, path, s.source).Check(ctx))
			s.set(&one)
			f := newFile(t, path, s.source)
			require.NoError(t, f.Check(ctx))
			require.NoError(t, f.Save(ctx, []byte("one")))
			mustLoad(t, newFile(t, path, s.source), "one")

			raw, ok := decodeKey([]byte(one))
			require.True(t, ok)
			require.Equal(t, fingerprint(raw), headerOf(t, path).ref)

			for _, text := range []*string{&two, &no} {
				s.set(text)
				_, err := newFile(t, path, s.source).Load(ctx)
				requireError(t, "wrong-key", err)
			}
			s.set(nil)
			_, err := newFile(t, path, s.source).Load(ctx)
			if name == "command" {
				requireError(t, "wrong-key", err) // it prints an empty line
			} else {
				requireError(t, "unavailable", err) // somebody else keeps it
				requireError(t, "unavailable", newFile(t, tempPath(t), s.source).Check(ctx))
			}
			s.set(&two)
			require.NoError(t, f.Rotate(ctx, s.source), "a new value, and the key in memory")
			mustLoad(t, newFile(t, path, s.source), "one")
		})
	}
}

func TestKeyFileIsChecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(randomKey())), 0o600))
	if runtime.GOOS != "windows" {
		require.NoError(t, os.Chmod(path, 0o644))
		err := newFile(t, tempPath(t), KeyFile(path)).Check(ctx)
		requireError(t, "unavailable", err)
		require.ErrorIs(t, err, os.ErrPermission)
		require.NoError(t, os.Chmod(path, 0o600))
	}
	require.NoError(t, newFile(t, tempPath(t), KeyFile(path)).Check(ctx))
	require.NoError(t, os.WriteFile(path, make([]byte, maxKeyText+1), 0o600))
	err := newFile(t, tempPath(t), KeyFile(path)).Check(ctx)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
}

func TestCommandThatDoesNotHelp(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	prove := func(ctx context.Context, name string) error { return newFile(t, tempPath(t), Command(name)).Check(ctx) }

	requireError(t, "unavailable", prove(ctx, filepath.Join(t.TempDir(), "none")))
	t.Setenv("TOKENKEEP_TEST_CHILD", "fails")
	requireError(t, "unavailable", prove(ctx, exe))
	t.Setenv("TOKENKEEP_TEST_CHILD", "print-much")
	requireError(t, "unavailable", prove(ctx, exe))

	for _, what := range []string{"hang", "leave-child"} {
		t.Run(what, func(t *testing.T) {
			pidFile := filepath.Join(t.TempDir(), "pid")
			t.Setenv("TOKENKEEP_TEST_CHILD", what)
			t.Setenv("TOKENKEEP_TEST_PID", pidFile)
			short, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() { // ends the context once the command, or its child, runs
				for {
					if b, err := os.ReadFile(pidFile); err == nil && len(b) > 0 {
						cancel()
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			err := prove(short, exe)
			requireError(t, "unavailable", err)
			require.ErrorIs(t, err, context.Canceled)
			if what == "leave-child" {
				b, err := os.ReadFile(pidFile)
				require.NoError(t, err)
				pid, err := strconv.Atoi(string(b))
				require.NoError(t, err)
				p, err := os.FindProcess(pid)
				require.NoError(t, err)
				require.NoError(t, p.Kill(), "control: it has outlived the command")
			}
		})
	}
}

func TestRawKey(t *testing.T) {
	key, path := randomKey(), tempPath(t)
	require.NoError(t, newFile(t, path, Raw(key)).Save(ctx, []byte("one")))
	mustLoad(t, newFile(t, path, Raw(key)), "one")
	require.Equal(t, fingerprint(key), headerOf(t, path).ref)
	_, err := newFile(t, path, Raw(randomKey())).Load(ctx)
	requireError(t, "wrong-key", err)
	require.ErrorContains(t, err, "id", "it is the id that tells")
	source := Raw(key)
	clear(key)
	mustLoad(t, newFile(t, path, source), "one")
}

func TestPassphraseErrors(t *testing.T) {
	boom := errors.New("no terminal")
	path := tempPath(t)
	f := newFile(t, path, Passphrase(func(context.Context) ([]byte, error) { return nil, boom }, nil))
	require.ErrorIs(t, f.Check(ctx), boom)
	requireError(t, "wrong-key", newFile(t, path, cheap("")).Save(ctx, nil))
	require.NoFileExists(t, path)
}

func TestDefaultCost(t *testing.T) {
	path := tempPath(t)
	require.NoError(t, newFile(t, path, Passphrase(func(context.Context) ([]byte, error) { return []byte("x"), nil }, nil)).Save(ctx, nil))
	require.Regexp(t, `^[0-9a-f]{32} m=65536 p=4 salt=[A-Za-z0-9_-]{22} t=3$`, headerOf(t, path).ref)
}

// The caps are checked before anybody is asked.
func TestCapsComeFirst(t *testing.T) {
	s := Passphrase(func(context.Context) ([]byte, error) {
		t.Fatal("asked for a passphrase")
		return nil, nil
	}, nil)
	const salt = " salt=AAAAAAAAAAAAAAAAAAAAAA "
	for ref, class := range map[string]string{
		"id m=1048577 p=1" + salt + "t=1":             "unsupported-version",
		"id m=9999999999 p=1" + salt + "t=9999999999": "unsupported-version",
		"id m=1048576 p=1" + salt + "t=5":             "unsupported-version",
		"id m=136 p=17" + salt + "t=1":                "unsupported-version",
		"id m=64 p=1" + salt + "t=1025":               "unsupported-version",
		"id m=7 p=1" + salt + "t=1":                   "corrupt",
		"id m=64 p=9999999999" + salt + "t=1":         "corrupt",
		"id m=64 p=1" + salt + "t=":                   "corrupt",
		"id m=64 p=1" + salt + "t=+1":                 "corrupt",
		"id m=64 p=1" + salt + "t=01":                 "corrupt",
		"id m=64 p=1 salt=AAAAAAAAAAAAAAAAAAAAAB t=1": "corrupt",
		"id m=64 p=1 salt=AAAAAAAAAAAAAAAAAAAAA t=1":  "corrupt",
		"id": "corrupt",
	} {
		_, err := s.Key(ctx, ref)
		require.Equal(t, class, classOf(err), "%s: %v", ref, err)
	}
	for _, c := range []Cost{{}, {Memory: 7, Passes: 1, Lanes: 1}, {Memory: 1<<20 + 1, Passes: 1, Lanes: 1}, {Memory: 1 << 20, Passes: 5, Lanes: 1}, {Memory: 1 << 10, Passes: 1025, Lanes: 1}, {Memory: 1 << 10, Passes: 1, Lanes: 17}} {
		require.False(t, c.valid(), "%v", c)
	}
	require.True(t, Cost{Memory: 1 << 20, Passes: 4, Lanes: 16}.valid())
	require.True(t, DefaultCost.valid())
}

// A prompt that outlasts its caller's context is the next caller's: there are
// never two.
func TestAPromptIsAdopted(t *testing.T) {
	asked, answer := make(chan struct{}, 10), make(chan string)
	f := newFile(t, tempPath(t), Passphrase(func(context.Context) ([]byte, error) {
		asked <- struct{}{}
		return []byte(<-answer), nil
	}, &PassphraseOptions{Cost: Cost{Memory: 32, Passes: 1, Lanes: 1}}))
	short, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- f.Check(short) }()
	<-asked
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)

	go func() { done <- f.Check(ctx) }()
	answer <- "secret"
	require.NoError(t, <-done)
	require.Empty(t, asked)
}

// A prompt that was given up because its caller's context ended is asked anew
// for a caller whose context has not.
func TestAPromptThatWasGivenUpIsAskedAnew(t *testing.T) {
	asked := make(chan context.Context, 10)
	p := Passphrase(func(ctx context.Context) ([]byte, error) {
		asked <- ctx
		if len(asked) == 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return []byte("secret"), nil
	}, &PassphraseOptions{Cost: Cost{Memory: 32, Passes: 1, Lanes: 1}})
	short, cancel := context.WithCancel(ctx)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, _, err := p.NewKey(short, "id"); first <- err }()
	for len(asked) == 0 {
		runtime.Gosched()
	}
	go func() { _, _, err := p.NewKey(ctx, "id"); second <- err }()
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	require.NoError(t, <-second)
}

func TestDerivationsTakeTurns(t *testing.T) {
	deriving <- struct{}{} // as if one were under way
	ended, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { _, _, err := cheap("x").NewKey(ended, "id"); done <- err }()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	<-deriving
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			_, _, err := cheap(fmt.Sprint(i)).NewKey(ctx, "id")
			require.NoError(t, err)
		})
	}
	group.Wait()
}

func TestSourcesAskedDirectlySayWhatIsWrong(t *testing.T) {
	for _, s := range []KeySource{Raw(nil), Env("a=b"), KeyFile(""), Command(""), Passphrase(nil, nil)} {
		_, _, err := s.NewKey(ctx, "id")
		require.Error(t, err)
		_, err = s.Key(ctx, strings.Repeat("0", 32)+" ")
		require.Error(t, err)
	}
}

// A header may ask for a small multiple of what this program writes, unless the
// program is set higher.
func TestAFileThatAsksForMuchWork(t *testing.T) {
	const salt = " salt=AAAAAAAAAAAAAAAAAAAAAA "
	for _, c := range []struct {
		cost, ref string
		refused   bool
	}{
		{"default", "m=262144 p=4" + salt + "t=3", false},
		{"default", "m=262145 p=4" + salt + "t=1", true},
		{"default", "m=65536 p=4" + salt + "t=12", false},
		{"default", "m=65536 p=4" + salt + "t=13", true},
		{"default", "m=1048576 p=4" + salt + "t=4", true},
		{"little", "m=262144 p=4" + salt + "t=3", false},
		{"little", "m=262145 p=4" + salt + "t=1", true},
		{"much", "m=1048576 p=4" + salt + "t=4", false},
	} {
		stop := errors.New("asked")
		cost := map[string]Cost{"little": {Memory: 32, Passes: 1, Lanes: 1}, "much": {Memory: 1 << 18, Passes: 4, Lanes: 4}}[c.cost]
		source := Passphrase(func(context.Context) ([]byte, error) { return nil, stop }, &PassphraseOptions{Cost: cost})
		_, err := source.Key(ctx, "id "+c.ref)
		if !c.refused {
			require.ErrorIs(t, err, stop, "%s %s", c.cost, c.ref)
			continue
		}
		require.ErrorIs(t, err, persistence.ErrUnsupportedVersion, "%s %s", c.cost, c.ref)
		require.NotErrorIs(t, err, stop)
		require.ErrorContains(t, err, "much more work")
		require.NotEmpty(t, persistence.Remedy(err))
	}
}

// A wrong passphrase on a file that costs more than usual may be a forged header:
// the error says so.
func TestAWrongPassphraseOnAFileThatCostsMoreThanUsual(t *testing.T) {
	write := func(cost Cost) string {
		path := tempPath(t)
		source := Passphrase(func(context.Context) ([]byte, error) { return []byte("right"), nil }, &PassphraseOptions{Cost: cost})
		require.NoError(t, newFile(t, path, source).Save(ctx, nil))
		return path
	}
	err := newFile(t, write(Cost{Memory: DefaultCost.Memory + 1024, Passes: 3, Lanes: 4}), cheap("wrong")).Check(ctx)
	requireError(t, "wrong-key", err)
	require.ErrorContains(t, err, "it asks for more work than this program writes")
	err = newFile(t, write(Cost{Memory: 32, Passes: 1, Lanes: 1}), cheap("wrong")).Check(ctx)
	requireError(t, "wrong-key", err)
	require.NotContains(t, err.Error(), "more work", "control")
}

// A wrong passphrase that is often not what was meant, or comes in several forms, is
// told as such, and not shown.
func TestHintAboutAPassphrase(t *testing.T) {
	const newline, beyond = "ends in a line break", "characters beyond ASCII"
	for given, hints := range map[string][]string{
		"caf\u00e9 planted":     {beyond},
		"cafe\u0301 planted\n":  {newline, beyond},
		"planted horse\n":       {newline},
		"planted horse\r\n":     {newline},
		"planted\nhorse":        nil,
		"planted horse":         nil,
		"planted \xff no UTF-8": {beyond},
	} {
		path := tempPath(t)
		cost := &PassphraseOptions{Cost: Cost{Memory: 32, Passes: 1, Lanes: 1}}
		say := func(text string) KeySource {
			return Passphrase(func(context.Context) ([]byte, error) { return []byte(text), nil }, cost)
		}
		require.NoError(t, newFile(t, path, say("another")).Save(ctx, []byte("one")))
		_, err := newFile(t, path, say(given)).Load(ctx)
		requireError(t, "wrong-key", err)
		require.NotContains(t, err.Error(), "planted")
		for _, hint := range []string{newline, beyond} {
			require.Equal(t, slices.Contains(hints, hint), strings.Contains(err.Error(), hint), "%q: %v", given, err)
		}
	}
}
