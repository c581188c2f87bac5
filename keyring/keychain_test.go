package keyring

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// fakeSecurity keeps items as security(1) does, as far as this package uses it,
// by Apple's published source. It is no evidence about macOS.
type fakeSecurity struct {
	mu    sync.Mutex
	items map[string]string
	lines []string   // what came by standard input
	args  [][]string // of each call
}

func (f *fakeSecurity) run(ctx context.Context, stdin string, args ...string) (string, int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.args = append(f.args, args)
	if slices.Equal(args, []string{"-i"}) {
		f.lines = append(f.lines, stdin)
		line, rest, ended := strings.Cut(stdin, "\n")
		if !ended || rest != "" || len(line) > 4095 {
			return "", 1, nil // it would be cut off, or be two commands
		}
		args = words(line)
	}
	options := map[string]string{}
	for i := 1; i < len(args); i++ {
		switch name := args[i]; name {
		case "-s", "-a":
			i++
			options[name] = args[i]
		case "-w":
			if i+1 < len(args) {
				i++
				options[name] = args[i]
			}
		case "-U":
		default:
			return "", 2, nil // its usage
		}
	}
	item := options["-s"] + "\x00" + options["-a"]
	old, found := f.items[item]
	switch args[0] {
	case "find-generic-password":
		if !found {
			return "", 44, nil
		}
		for _, b := range []byte(old) {
			if b < ' ' || b > '~' {
				return fmt.Sprintf("%x\n", old), 0, nil
			}
		}
		return old + "\n", 0, nil
	case "add-generic-password":
		f.items[item] = options["-w"]
		return "", 0, nil
	case "delete-generic-password":
		if !found {
			return "", 44, nil
		}
		delete(f.items, item)
		return "keychain: \"…\"\nattributes:\n", 0, nil
	}
	return "", 1, nil
}

// words splits a line: a word ends at a space or, if it began with a quote, at
// that quote; a backslash takes the meaning of what follows.
func words(line string) (list []string) {
	for line = strings.TrimLeft(line, " "); line != ""; line = strings.TrimLeft(line, " ") {
		end, word := byte(' '), []byte(nil)
		if line[0] == '"' || line[0] == '\'' {
			end, line = line[0], line[1:]
		}
		for line != "" && line[0] != end {
			if line[0] == '\\' && len(line) > 1 {
				line = line[1:]
			}
			word, line = append(word, line[0]), line[1:]
		}
		if line != "" {
			line = line[1:]
		}
		list = append(list, string(word))
	}
	return list
}

func newFakeSecurity() (*system, *fakeSecurity) {
	f := &fakeSecurity{items: map[string]string{}}
	return &system{&keychain{settings{timeout: time.Minute}, f.run}}, f
}

func TestSecurityItems(t *testing.T) {
	k, f := newFakeSecurity()
	ctx := t.Context()
	const planted = "planted-secret"
	names := []string{"app", "with space", `it's`, `"`, `a\b`, `\`, `' "quoted" \'`, "-w", "é", strings.Repeat(`"\`, 250)}
	for _, name := range names {
		for _, secret := range []string{"", planted, "two\nlines and ünïcode", "\x00\xff not UTF-8", strings.Repeat("x", k.ItemLimit(name, name))} {
			require.NoError(t, k.Set(ctx, name, name, secret))
			got, err := k.Get(ctx, name, name)
			require.NoError(t, err, name)
			require.Equal(t, secret, got)
		}
		require.ErrorIs(t, k.Set(ctx, name, name, strings.Repeat("x", k.ItemLimit(name, name)+1)), persistence.ErrTooLarge)
	}
	require.Len(t, f.items, len(names), "no two names are one item")
	for _, name := range names {
		require.NoError(t, k.Delete(ctx, name, name))
		_, err := k.Get(ctx, name, name)
		require.ErrorIs(t, err, persistence.ErrNotFound)
		require.ErrorIs(t, k.Delete(ctx, name, name), persistence.ErrNotFound)
	}
	require.NotContains(t, fmt.Sprint(f.args), planted)
	require.NotContains(t, fmt.Sprint(f.args), base64.StdEncoding.EncodeToString([]byte(planted)), "a secret is never an argument")

	// What go-keyring sends and stores for a plain name.
	require.NoError(t, k.Set(ctx, "app", "alice", "secret"))
	require.Equal(t, "go-keyring-base64:c2VjcmV0", f.items["app\x00alice"])
	for stored, want := range map[string]string{
		"go-keyring-base64:c2VjcmV0":         "secret",
		"go-keyring-encoded:736563726574":    "secret", // before version 0.2.5
		"  somebody's own, with its spaces ": "  somebody's own, with its spaces ",
		"":                                   "",
	} {
		f.items["app\x00alice"] = stored
		got, err := k.Get(ctx, "app", "alice")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, stored := range []string{"go-keyring-base64:!" + planted, "go-keyring-encoded:zz" + planted} {
		f.items["app\x00alice"] = stored
		_, err := k.Get(ctx, "app", "alice")
		require.ErrorIs(t, err, persistence.ErrCorrupt)
		require.NotContains(t, err.Error(), planted)
	}
}

func TestSecurityAsBackend(t *testing.T) {
	k, _ := newFakeSecurity()
	data := []byte(strings.Repeat("tokens\x00\xff", 10_000))
	p, err := New(k, "app", "alice", persistence.NewFileLock(filepath.Join(t.TempDir(), "cache.lock")))
	require.NoError(t, err)
	require.NoError(t, p.Save(t.Context(), data))
	got, err := p.Load(t.Context())
	require.NoError(t, err)
	require.True(t, string(data) == string(got))
}

// The argument and output contract, case by case.
func TestSecurityContract(t *testing.T) {
	const planted = "planted-secret"
	get := []string{"find-generic-password", "-s", "app", "-a", "alice", "-w"}
	set := []string{"-i"}
	remove := []string{"delete-generic-password", "-s", "app", "-a", "alice"}
	line := `add-generic-password -U -s "app" -a "alice" -w go-keyring-base64:` + base64.StdEncoding.EncodeToString([]byte(planted)) + "\n"
	failed := errors.New("fork: " + planted)
	for _, c := range []struct {
		args   []string
		stdout string
		status int
		err    error
		class  error // nil: success
		says   string
	}{
		{args: get, stdout: "go-keyring-base64:c2VjcmV0\n"},
		{args: set},
		{args: remove, stdout: "keychain: \"login.keychain-db\"\n"},
		{args: get, status: 44, class: persistence.ErrNotFound},
		{args: remove, status: 44, class: persistence.ErrNotFound},
		{args: get, status: 36, class: persistence.ErrKeyringLocked, says: "may not ask"},
		{args: set, status: 36, class: persistence.ErrKeyringLocked, says: "may not ask"},
		{args: get, status: 24, class: persistence.ErrKeyringLocked, says: "may not ask"},
		{args: get, status: 29, class: persistence.ErrKeyringLocked, says: "may not ask"},
		{args: get, status: 152, class: persistence.ErrKeyringLocked, says: "may not ask"},
		{args: get, status: 153, class: persistence.ErrKeyringLocked, says: "may not ask"},
		{args: get, status: 51, class: persistence.ErrKeyringLocked, says: "refused access"},
		{args: get, status: 155, class: persistence.ErrKeyringLocked, says: "refused access"},
		{args: remove, status: 195, class: persistence.ErrKeyringLocked, says: "only be read"},
		{args: set, status: 52, class: persistence.ErrKeyringLocked, says: "only be read"},
		{args: get, status: 128, class: persistence.ErrKeyringLocked, says: "declined"},
		{args: get, status: 154, class: persistence.ErrKeyringLocked, says: "declined"},
		{args: set, status: 37, class: persistence.ErrUnavailable, says: "no keychain"},
		{args: set, status: 50, class: persistence.ErrUnavailable, says: "no keychain"},
		{args: set, status: 53, class: persistence.ErrUnavailable, says: "no keychain"},
		{args: set, status: 45, says: "cannot be changed"},
		{args: set, status: 1, says: "status 1"},
		{args: get, status: 2, says: "status 2"},
		{args: get, err: fmt.Errorf("exec: %w", os.ErrNotExist), class: persistence.ErrUnavailable, says: "missing"},
		{args: get, err: failed, class: persistence.ErrUnavailable, says: "did not run"},
	} {
		k := &system{&keychain{settings{timeout: time.Minute}, func(_ context.Context, stdin string, args ...string) (string, int, error) {
			require.Equal(t, c.args, args)
			if slices.Equal(args, set) {
				require.Equal(t, line, stdin)
			} else {
				require.Empty(t, stdin)
			}
			if c.status != 0 {
				return planted, c.status, nil
			}
			return c.stdout, 0, c.err
		}}}
		var err error
		switch c.args[0] {
		case "-i":
			err = k.Set(t.Context(), "app", "alice", planted)
		case "delete-generic-password":
			err = k.Delete(t.Context(), "app", "alice")
		default:
			_, err = k.Get(t.Context(), "app", "alice")
		}
		if c.class == nil && c.says == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, c.says)
		require.NotContains(t, err.Error(), planted)
		var e *persistence.Error
		require.ErrorAs(t, err, &e)
		if c.class != nil {
			require.ErrorIs(t, err, c.class)
		}
		if c.class != nil && c.class != persistence.ErrNotFound {
			require.NotEmpty(t, e.Remedy)
		}
	}
}

// With a real process in the place of security(1).
func TestSecurityProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no shell to play the program with")
	}
	program := func(t *testing.T, script string) string {
		path := filepath.Join(t.TempDir(), "security")
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700))
		return path
	}
	system := func(path string, o settings) *system {
		return &system{&keychain{o, execSecurity(path)}}
	}
	minute := settings{timeout: time.Minute}

	got, err := system(program(t, "echo go-keyring-base64:c2VjcmV0; echo noise >&2"), minute).Get(t.Context(), "app", "alice")
	require.NoError(t, err)
	require.Equal(t, "secret", got)
	_, err = system(program(t, "echo planted-secret; echo planted-secret >&2; exit 44"), minute).Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NotContains(t, err.Error(), "planted-secret")
	_, err = system(filepath.Join(t.TempDir(), "nothing"), minute).Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "missing")
	// Killed by somebody else.
	_, err = system(program(t, "kill -9 $$"), minute).Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrUnavailable)

	dir := t.TempDir()
	require.NoError(t, system(program(t, `echo "$@" > `+dir+`/args; cat > `+dir+`/line`), minute).Set(t.Context(), "app", "alice", "secret"))
	args, err := os.ReadFile(dir + "/args")
	require.NoError(t, err)
	require.Equal(t, "-i\n", string(args))
	line, err := os.ReadFile(dir + "/line")
	require.NoError(t, err)
	require.Equal(t, addCommand("app", "alice", "c2VjcmV0"), string(line))

	// One that waits for ever, as for a dialog, is killed with its context.
	waits := `echo $$ > ` + dir + `/pid.tmp; mv ` + dir + `/pid.tmp ` + dir + `/pid; exec sleep 1000000`
	ended := func() {
		pid, err := os.ReadFile(dir + "/pid")
		require.NoError(t, err)
		require.NoError(t, os.Remove(dir+"/pid"))
		require.Error(t, exec.Command("kill", "-0", strings.TrimSpace(string(pid))).Run(), "the process is still there")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	waiting := system(program(t, waits), settings{timeout: time.Hour})
	goroutines := runtime.NumGoroutine()
	go func() {
		_, err := waiting.Get(ctx, "app", "alice")
		done <- err
	}()
	require.Eventually(t, func() bool { _, err := os.Stat(dir + "/pid"); return err == nil }, time.Minute, time.Millisecond)
	cancel()
	err = <-done
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, persistence.ErrUnavailable)
	ended()
	for giveUp := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		require.True(t, time.Now().Before(giveUp), "a goroutine is left")
	}

	// And when its time is up, whatever the context allows.
	err = system(program(t, waits), settings{timeout: 100 * time.Millisecond}).Set(t.Context(), "app", "alice", "secret")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
