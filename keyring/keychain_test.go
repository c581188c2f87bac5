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
	"testing/synctest"
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

	searched, defaults, login string         // what list-keychains, default-keychain and login-keychain print
	locked                    map[string]int // by keychain: the status of a question for its password; 0 if its user types it
	in                        string         // the keychain that has the items
}

func (f *fakeSecurity) run(ctx context.Context, stdin string, args ...string) (string, int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.args = append(f.args, args)
	switch args[0] {
	case "list-keychains":
		return f.searched, 0, nil
	case "default-keychain":
		if f.defaults == "" {
			return "", 37, nil
		}
		return f.defaults, 0, nil
	case "login-keychain":
		if f.login == "" {
			return "", 1, nil
		}
		return f.login, 0, nil
	case "show-keychain-info":
		return "", f.askPassword(args[1]), nil
	}
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
		if !found || f.askPassword(f.in) != 0 {
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

// askPassword opens a keychain if its user types the password.
func (f *fakeSecurity) askPassword(path string) (status int) {
	if status = f.locked[path]; status == 0 {
		delete(f.locked, path)
	}
	return status
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

func newFakeSecurity(t testing.TB) (*system, *fakeSecurity) {
	f := &fakeSecurity{items: map[string]string{}}
	f.defaults = printedPath(loginKeychain(t))
	f.searched = f.defaults + printedPath(systemKeychain)
	return &system{&keychain{settings: settings{timeout: time.Minute}, run: f.run}}, f
}

// loginKeychain returns the path of a file that plays a keychain.
func loginKeychain(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "login.keychain-db")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	return path
}

// printedPath is how security prints a path: as it is.
func printedPath(path string) string { return `    "` + path + "\"\n" }

func TestSecurityItems(t *testing.T) {
	k, f := newFakeSecurity(t)
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
	k, _ := newFakeSecurity(t)
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
		{args: get, stdout: "", class: persistence.ErrUnavailable, says: "has not printed"},
		{args: get, stdout: "go-keyring-base64:c2Vj", class: persistence.ErrUnavailable, says: "has not printed"},
		{args: get, err: fmt.Errorf("exec: %w", os.ErrNotExist), class: persistence.ErrUnavailable, says: "missing"},
		{args: get, err: failed, class: persistence.ErrUnavailable, says: "did not run"},
	} {
		login := printedPath(loginKeychain(t))
		k := &system{&keychain{settings: settings{timeout: time.Minute}, run: func(_ context.Context, stdin string, args ...string) (string, int, error) {
			switch args[0] {
			case "list-keychains", "default-keychain", "show-keychain-info":
				return login, 0, nil
			}
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
		return &system{&keychain{settings: o, run: execSecurity(path)}}
	}
	minute := settings{timeout: time.Minute}

	got, err := system(program(t, "echo go-keyring-base64:c2VjcmV0; echo noise >&2"), minute).Get(t.Context(), "app", "alice")
	require.NoError(t, err)
	require.Equal(t, "secret", got)
	login := `case $1 in (*-keychain*) printf %s '` + printedPath(loginKeychain(t)) + "'; exit;; esac\n"
	_, err = system(program(t, login+"echo planted-secret; echo planted-secret >&2; exit 44"), minute).Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NotContains(t, err.Error(), "planted-secret")
	_, err = system(filepath.Join(t.TempDir(), "nothing"), minute).Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "missing")
	require.Equal(t, Denied, SituationOf(err), "no situation in which plaintext may follow")
	// Killed by somebody else, who may have seen its dialog. That is no reason to
	// store the tokens less safely.
	_, err = system(program(t, "kill -9 $$"), minute).Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.NotErrorIs(t, err, persistence.ErrUnavailable)
	// Ctrl-C at a terminal ends the processes of this group, and it is not one.
	group, err := system(program(t, "kill -s 0 -- -$$ && echo of its own"), minute).Get(t.Context(), "app", "alice")
	require.NoError(t, err)
	require.Equal(t, "of its own", group)

	dir := t.TempDir()
	require.NoError(t, system(program(t, login+`echo "$@" > `+dir+`/args; cat > `+dir+`/line`), minute).Set(t.Context(), "app", "alice", "secret"))
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

	// And when its time is up, whatever the context allows. Its user may have been
	// asked.
	_, err = system(program(t, waits), settings{timeout: 100 * time.Millisecond}).Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, Unanswered, SituationOf(err))
}

// Where security says "not found", and whether this session can know. The answers
// are those of Apple's source and documentation, played back.
func TestSecuritySessions(t *testing.T) {
	login, another := loginKeychain(t), loginKeychain(t)
	german := filepath.Join(filepath.Dir(loginKeychain(t)), "Schlüssel\"bund.keychain-db")
	if runtime.GOOS != "windows" { // whose names have no quotes
		require.NoError(t, os.WriteFile(german, nil, 0o600))
	} else {
		german = login
	}
	missing := filepath.Join(t.TempDir(), "Library", "Keychains", "login.keychain-db")
	system := printedPath(systemKeychain)
	for name, c := range map[string]struct {
		searched, defaults string
		says               string // "" if the session has the user's keychains
	}{
		"a login session":                          {printedPath(login) + system, printedPath(login), ""},
		"a keychain of one's own, as in CI":        {printedPath(another) + printedPath(login) + system, printedPath(another), ""},
		"a name that is not ASCII":                 {printedPath(german) + system, printedPath(german), ""},
		"cron, a launchd daemon, without one":      {system, "", "only the System keychain"},
		"cron, a launchd daemon":                   {system, system, "only the System keychain"},
		"the System keychain as the default":       {printedPath(login) + system, system, "is the System keychain"},
		"no default keychain":                      {printedPath(login) + system, "", "no default keychain"},
		"another $HOME":                            {printedPath(missing) + system, printedPath(missing), "does not exist"},
		"a default that is not searched":           {printedPath(login) + system, printedPath(another), "does not search"},
		"no keychain, as when macOS has no answer": {"", "", "no keychain"},
		"an entry without a path, as was seen":     {printedPath("") + printedPath(login), printedPath(login), "is no path"},
		"what is not the program's form":           {"login.keychain-db\n", printedPath(login), "is no path"},
		"a list that is null":                      {" <NULL>\n", printedPath(login), "is no path"},
	} {
		t.Run(name, func(t *testing.T) {
			k, f := newFakeSecurity(t)
			f.searched, f.defaults = c.searched, c.defaults
			_, err := k.Get(t.Context(), "app", "alice")
			_, keyErr := NewKeys(k, "app").Key(t.Context(), "0123")
			deleteErr := k.Delete(t.Context(), "app", "alice")
			setErr := k.Set(t.Context(), "app", "alice", "secret")
			if c.says == "" {
				require.ErrorIs(t, err, persistence.ErrNotFound)
				require.ErrorIs(t, keyErr, persistence.ErrKeyMissing)
				require.ErrorIs(t, deleteErr, persistence.ErrNotFound)
				require.NoError(t, setErr)
				return
			}
			for _, err := range []error{err, keyErr, deleteErr, setErr} {
				require.ErrorIs(t, err, persistence.ErrUnavailable)
				require.NotErrorIs(t, err, persistence.ErrNotFound)
				require.NotErrorIs(t, err, persistence.ErrKeyMissing)
				require.ErrorContains(t, err, c.says)
				require.Equal(t, NoSession, SituationOf(err))
				require.NotEmpty(t, persistence.Remedy(err))
			}
			require.Empty(t, f.items)
			require.Empty(t, f.lines, "macOS is asked to keep nothing: it would show a dialog that can wipe the keychain")
		})
	}
}

// A key that is not found is gone only if the session searches every keychain that
// may have it, and could open each of them. A new one can be kept anyway, where the
// default keychain is open.
func TestSecurityKeysThatMayBeElsewhere(t *testing.T) {
	login, build := loginKeychain(t), loginKeychain(t)
	missing := filepath.Join(t.TempDir(), "login.keychain-db")
	system := printedPath(systemKeychain)
	const id = "0123"
	for name, c := range map[string]struct {
		searched, login string
		home            []string       // files in $HOME/Library/Keychains
		locked          map[string]int // as fakeSecurity has it; the login keychain has the key
		says            string         // "" if the key is gone
		situation       Situation
		keeps           bool // whether a new key can be kept
	}{
		"the login keychain":                         {searched: printedPath(login) + system, login: printedPath(login), keeps: true},
		"one for signing programs, before it":        {searched: printedPath(build) + printedPath(login) + system, login: printedPath(login), keeps: true},
		"a user without a login keychain":            {searched: printedPath(build) + system, keeps: true},
		"a login keychain that was never made":       {searched: printedPath(build) + system, login: printedPath(missing), keeps: true},
		"a smart card, which has no path":            {searched: printedPath("PIV-1234") + printedPath(login), login: printedPath(login), keeps: true},
		"one for signing programs alone":             {searched: printedPath(build) + system, login: printedPath(login), says: "does not search the login keychain", situation: NoSession, keeps: true},
		"the login keychain is on a disk, unmounted": {searched: printedPath(build) + printedPath(missing) + system, login: printedPath(missing), says: "does not exist", situation: NoSession, keeps: true},
		"another keychain is on a disk, unmounted":   {searched: printedPath(login) + printedPath(missing) + system, login: printedPath(login), says: "does not exist", situation: NoSession, keeps: true},
		"security cannot open the login keychain":    {searched: printedPath(build) + system, home: []string{"login.keychain-db"}, says: "does not search the login keychain", situation: NoSession, keeps: true},
		"and it has the form of before macOS 10.12":  {searched: printedPath(build) + system, home: []string{"login.keychain"}, says: "does not search the login keychain", situation: NoSession, keeps: true},
		"the old form that an update has left":       {searched: printedPath(login) + system, login: printedPath(login), home: []string{"login.keychain"}, keeps: true},

		// Of these, security says "not found" as well.
		"locked, over SSH":                               {searched: printedPath(login) + system, login: printedPath(login), locked: map[string]int{login: 36}, says: "is locked", situation: Locked},
		"locked, over SSH, beside one that is open":      {searched: printedPath(build) + printedPath(login) + system, login: printedPath(login), locked: map[string]int{login: 36}, says: login + " is locked", situation: Locked, keeps: true},
		"its user declines to unlock it":                 {searched: printedPath(login) + system, login: printedPath(login), locked: map[string]int{login: 128}, says: "declined", situation: Declined},
		"declines, beside one that is open":              {searched: printedPath(build) + printedPath(login) + system, login: printedPath(login), locked: map[string]int{login: 128}, says: "declined", situation: Declined, keeps: true},
		"the password is not that of the login any more": {searched: printedPath(build) + printedPath(login) + system, login: printedPath(login), locked: map[string]int{login: 51}, says: "is locked", situation: Locked, keeps: true},
		"one that is damaged, or kept by a sandbox":      {searched: printedPath(build) + printedPath(login) + system, login: printedPath(login), locked: map[string]int{login: 1}, says: "cannot be opened", situation: Failed, keeps: true},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			require.NoError(t, os.MkdirAll(filepath.Join(home, "Library", "Keychains"), 0o700))
			for _, file := range c.home {
				require.NoError(t, os.WriteFile(filepath.Join(home, "Library", "Keychains", file), nil, 0o600))
			}
			k, f := newFakeSecurity(t)
			f.searched, f.login, f.locked, f.in = c.searched, c.login, c.locked, login
			for line := range strings.Lines(c.searched) {
				if f.defaults = line; filepath.IsAbs(parsePath(strings.TrimSpace(line))) {
					break
				}
			}
			key := coding.EncodeToString(make([]byte, keySize))
			if c.locked != nil {
				f.items["app\x00tokenkeep key "+id] = "go-keyring-base64:" + base64.StdEncoding.EncodeToString([]byte(key))
			}
			for wrapper, k := range wrappers(k) {
				_, err := NewKeys(k, "app").Key(t.Context(), id)
				if c.says == "" {
					require.ErrorIs(t, err, persistence.ErrKeyMissing, wrapper)
					continue
				}
				require.NotErrorIs(t, err, persistence.ErrKeyMissing, wrapper)
				require.NotErrorIs(t, err, persistence.ErrNotFound, wrapper)
				require.ErrorIs(t, err, c.situation, wrapper)
				require.ErrorContains(t, err, c.says, wrapper)
				require.NotEmpty(t, persistence.Remedy(err), wrapper)
			}
			if c.says != "" && c.keeps {
				// Control: who does not look into every keychain gives up a sound file.
				_, err := NewKeys(believing{k}, "app").Key(t.Context(), id)
				require.ErrorIs(t, err, persistence.ErrKeyMissing)
			}
			f.in = "" // the new one is in the default keychain
			_, _, err := NewKeys(k, "app").NewKey(t.Context(), "4567")
			if !c.keeps {
				require.ErrorIs(t, err, c.situation)
				require.Empty(t, f.lines)
				return
			}
			require.NoError(t, err)
			_, err = NewKeys(k, "app").Key(t.Context(), "4567")
			require.NoError(t, err)
		})
	}
}

// Of a locked keychain security says "not found" as well. Who looks for an item that was
// never made, as doctor does, learns that it is locked.
func TestSecurityTellsThatTheKeychainIsLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, f := newFakeSecurity(t)
		get := func() error { _, err := k.Get(t.Context(), "app", "nobody"); return err }
		require.ErrorIs(t, get(), persistence.ErrNotFound, "control")
		f.locked = map[string]int{parsePath(strings.TrimSpace(f.defaults)): 36}
		<-time.After(sessionLasts)
		for _, err := range []error{get(), k.Set(t.Context(), "app", "alice", "secret"), k.Delete(t.Context(), "app", "alice")} {
			require.Equal(t, Locked, SituationOf(err))
			require.ErrorContains(t, err, "login.keychain-db is locked")
			require.Contains(t, persistence.Remedy(err), "security unlock-keychain ")
		}
		require.Empty(t, f.lines)
		f.locked = nil
		require.ErrorIs(t, get(), persistence.ErrNotFound)
		require.NoError(t, k.Set(t.Context(), "app", "alice", "secret"))
	})
}

// A default keychain that is not known to be locked is used: what is wrong with it the
// call itself says.
func TestSecurityWithAnUnknownState(t *testing.T) {
	k, f := newFakeSecurity(t)
	f.locked = map[string]int{parsePath(strings.TrimSpace(f.defaults)): 1}
	_, err := k.Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NoError(t, k.Set(t.Context(), "app", "alice", "secret"))
	// But no key is gone.
	_, err = NewKeys(k, "app").Key(t.Context(), "0123")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.NotErrorIs(t, err, persistence.ErrKeyMissing)
}

// Who types the password when macOS asks for it gets the key.
func TestSecurityKeysAfterUnlocking(t *testing.T) {
	k, f := newFakeSecurity(t)
	key := make([]byte, keySize)
	require.NoError(t, k.Set(t.Context(), "app", "tokenkeep key 0123", coding.EncodeToString(key)))
	f.in = parsePath(strings.TrimSpace(f.defaults))
	f.login = f.defaults
	f.locked = map[string]int{f.in: 128}
	k.platform.(*keychain).run = func(ctx context.Context, stdin string, args ...string) (string, int, error) {
		out, status, err := f.run(ctx, stdin, args...)
		if args[0] == "find-generic-password" {
			f.locked[f.in] = 0 // the next time he types it
		}
		return out, status, err
	}
	got, err := NewKeys(k, "app").Key(t.Context(), "0123")
	require.NoError(t, err)
	require.Equal(t, key, got)
}

// The sessions are asked for once in a while, not with each item.
func TestSecuritySessionsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, f := newFakeSecurity(t)
		questions := func() (n int) {
			for _, args := range f.args {
				if args[0] == "default-keychain" {
					n++
				}
			}
			return n
		}
		for range 5 {
			require.ErrorIs(t, k.Delete(t.Context(), "app", "alice"), persistence.ErrNotFound)
		}
		require.Equal(t, 1, questions())
		<-time.After(sessionLasts)
		require.NoError(t, k.Set(t.Context(), "app", "alice", "secret"))
		require.Equal(t, 2, questions())
	})
}

// Only the Keychain asks by itself.
func TestDefaultTimeout(t *testing.T) {
	require.Equal(t, 10*time.Second, defaultTimeout("windows"))
	require.Equal(t, time.Minute, defaultTimeout("darwin"))
}
