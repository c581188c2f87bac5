package tokenkeep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// The tests of this file run further processes: the test program again, with
// what it is to do in this variable.
const processVariable = "TOKENKEEP_OPEN_PROCESS"

// start starts a process that does that.
func (m *machine) start(do ...string) *exec.Cmd {
	m.t.Helper()
	exe, err := os.Executable()
	require.NoError(m.t, err)
	cmd := exec.CommandContext(m.t.Context(), exe, "-test.run=^TestProcess$")
	cmd.Env = append(os.Environ(), processVariable+"="+strings.Join(append([]string{m.dir, m.keys()}, do...), "\n"), "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(cmd.Env, env.Temp(m.t)...)
	return cmd
}

// keys returns the folder of the keyring that the processes share.
func (m *machine) keys() string {
	keys := m.dir + ".keys"
	require.NoError(m.t, os.MkdirAll(keys, 0o700))
	return keys
}

func (m *machine) keyCount() int {
	items, err := filepath.Glob(filepath.Join(m.keys(), "*.json"))
	require.NoError(m.t, err)
	return len(items)
}

// TestProcess is such a process.
func TestProcess(t *testing.T) {
	do := strings.Split(os.Getenv(processVariable), "\n")
	if len(do) < 3 {
		return
	}
	m := newMachine(t)
	m.dir = do[0]
	shared := keyringtest.NewDir(do[1])
	cfg := m.config()
	cfg.Keyring = shared
	switch do[2] {
	case "open":
		at, err := strconv.Atoi(do[3])
		require.NoError(t, err)
		cfg.Keyring = &deadly{Keyring: shared, at: at, late: do[4] == "late"}
		_, err = tokenkeep.Open(ctx, cfg)
		require.NoError(t, err)
	case "desktop", "ssh", "careless ssh":
		cfg.AllowPlaintext = true // it is one program, in different sessions
		open := func() (*persistence.Cache, error) { return tokenkeep.Open(ctx, cfg) }
		if do[2] != "desktop" {
			cfg.Keyring = keyringtest.NewAbsent()
		}
		if do[2] == "careless ssh" {
			f, err := fallback.NewInsecurePlaintextFile(filepath.Join(m.dir, "app.plaintext.json"), func(fallback.Warning) {},
				&fallback.Options{Lock: persistence.NewFileLock(filepath.Join(m.dir, "app.lock"))})
			require.NoError(t, err)
			open = func() (*persistence.Cache, error) { return persistence.New(f) }
		}
		addAccounts(t, open, do[3])
	}
}

// addAccounts adds some entries, by a cache that runs all the time and by others
// that are opened each time, and prints what was stored.
func addAccounts(t *testing.T, open func() (*persistence.Cache, error), name string) {
	running, err := open()
	if errors.Is(err, persistence.ErrUnavailable) {
		return // somebody was faster, with a keyring that this process does not have
	}
	require.NoError(t, err)
	io.Copy(io.Discard, os.Stdin) // until it may go on
	for n := range 4 {
		c := running
		if n%2 == 1 {
			if c, err = open(); errors.Is(err, persistence.ErrUnavailable) {
				continue
			}
			require.NoError(t, err)
		}
		key := fmt.Sprint(name, "-", n)
		err = c.Update(ctx, func(current []byte) ([]byte, error) { return addEntry(current, key), nil })
		if errors.Is(err, persistence.ErrUnavailable) {
			continue
		}
		require.NoError(t, err)
		fmt.Println("stored", key)
	}
}

// addEntry adds a token to a cache that has tokens only.
func addEntry(current []byte, key string) []byte {
	entry := fmt.Sprintf(`"%s":{"secret":"1"}`, key)
	if body, ok := bytes.CutPrefix(current, []byte(`{"RefreshToken":{`)); ok {
		return slices.Concat([]byte(`{"RefreshToken":{`+entry+`,`), body)
	}
	return []byte(`{"RefreshToken":{` + entry + `}}`)
}

// deadly ends the process at one of its calls.
type deadly struct {
	*keyringtest.Keyring
	at, calls int
	late      bool
}

func (k *deadly) around(call func()) {
	k.calls++
	if k.calls != k.at {
		call()
		return
	}
	if k.late {
		call()
	}
	if p, err := os.FindProcess(os.Getpid()); err != nil || p.Kill() != nil {
		panic("still alive")
	}
	select {}
}

func (k *deadly) Get(ctx context.Context, service, user string) (secret string, err error) {
	k.around(func() { secret, err = k.Keyring.Get(ctx, service, user) })
	return secret, err
}

func (k *deadly) Set(ctx context.Context, service, user, secret string) (err error) {
	k.around(func() { err = k.Keyring.Set(ctx, service, user, secret) })
	return err
}

func (k *deadly) Delete(ctx context.Context, service, user string) (err error) {
	k.around(func() { err = k.Keyring.Delete(ctx, service, user) })
	return err
}

// 40 processes are killed in the middle of the proof, before or after each of
// its calls of the keyring in turn. There is never more than one key in the
// keyring, which the next process takes, and none when that has deleted the cache.
func TestKillsInTheProofLeaveNothing(t *testing.T) {
	m := newMachine(t)
	kills, most := 0, 0
	for round := 0; kills < 40; round++ {
		for call, killed := 1, true; killed; call++ {
			for _, when := range []string{"before", "late"} {
				if round%2 == 0 { // else it finds what the one before has left
					c, err := tokenkeep.Open(ctx, m.ofProcesses())
					require.NoError(t, err)
					require.Equal(t, 1, m.keyCount())
					require.NoError(t, c.Delete(ctx))
					require.Zero(t, m.keyCount())
				}
				out, err := m.start("open", strconv.Itoa(call), when).CombinedOutput()
				var exit *exec.ExitError
				failed := errors.As(err, &exit)
				killed = failed && (!exit.Exited() || runtime.GOOS == "windows")
				require.Equal(t, killed, err != nil, "%v: %s", err, out)
				require.NotContains(t, string(out), "--- FAIL") // which a kill on Windows is not told from by its exit code
				require.LessOrEqual(t, m.keyCount(), 1)
				require.Empty(t, m.files())
				if killed {
					kills++
					most = max(most, call)
				}
			}
		}
	}
	require.GreaterOrEqual(t, most, 4, "the proof looks for a key, stores one and reads it back")
}

// ofProcesses is the configuration with the keyring that the processes share.
func (m *machine) ofProcesses() tokenkeep.Config {
	cfg := m.config()
	cfg.Keyring = keyringtest.NewDir(m.keys())
	return cfg
}

// Sessions on the desktop and over SSH, which have no keyring, begin at once
// with nothing stored, go on for a while and open anew; one of them does nothing
// until those on the desktop have ended. Whatever any of them was told that it
// is stored is there in the end, encrypted, and nothing is left in plaintext.
func TestSessionsInDifferentStates(t *testing.T) {
	run := func(t *testing.T, ssh string) (problem string) {
		m := newMachine(t)
		var all, desktops sync.WaitGroup
		var mu sync.Mutex
		var stored []string
		var late io.Closer
		for n, kind := range []string{"desktop", ssh, ssh, "desktop"} {
			cmd := m.start(kind, fmt.Sprint(strings.ReplaceAll(kind, " ", "-"), n))
			group := &all
			switch {
			case kind == "desktop":
				group = &desktops
			case late == nil:
				in, err := cmd.StdinPipe()
				require.NoError(t, err)
				late = in
			}
			group.Go(func() {
				out, err := cmd.CombinedOutput()
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					problem = fmt.Sprintf("%v: %s", err, out)
				}
				for line := range strings.Lines(string(out)) {
					if key, ok := strings.CutPrefix(line, "stored "); ok {
						stored = append(stored, strings.TrimSpace(key))
					}
				}
			})
		}
		desktops.Wait()
		late.Close()
		all.Wait()
		if problem != "" {
			return problem
		}
		if files := m.files(); !slices.Equal(files, []string{"app.enc"}) {
			return fmt.Sprint("there is ", files)
		}
		c, err := tokenkeep.Open(ctx, m.ofProcesses())
		require.NoError(t, err)
		data := load(t, c)
		for _, key := range stored {
			if !strings.Contains(data, `"`+key+`"`) {
				return key + " is lost"
			}
		}
		if len(stored) < 8 { // the desktops' at least
			return fmt.Sprint("only these were stored: ", stored)
		}
		require.Equal(t, 1, m.keyCount())
		return ""
	}
	for range 3 {
		require.Empty(t, run(t, "ssh"))
	}
	require.NotEmpty(t, run(t, "careless ssh"), "who does not look whether there is something safer does no harm: this test proves nothing")
}

// Nobody signs in only to learn then that the tokens cannot be kept: what does
// not work is found out by Open.
func TestProbeComesBeforeTheSignIn(t *testing.T) {
	for name, ring := range map[string]keyring.Keyring{
		"locked":    keyringtest.NewLocked(),
		"absent":    keyringtest.NewAbsent(),
		"full":      keyringtest.NewFull(),
		"hanging":   keyringtest.NewHanging(10 * time.Millisecond),
		"vanishing": keyringtest.NewVanishing(1),
		"forgetful": forgetful{keyringtest.New()},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			cfg := m.config()
			cfg.Keyring = ring
			_, err := tokenkeep.Open(ctx, cfg)
			require.ErrorContains(t, err, "\n  keyring: ")
			require.Empty(t, m.files())
		})
	}
}

// forgetful keeps nothing, and says that it does.
type forgetful struct{ *keyringtest.Keyring }

func (forgetful) Set(context.Context, string, string, string) error { return nil }

// A sign-in that succeeded stays one when its tokens cannot be stored just then,
// unless the program asks for that.
func TestTroubleAfterTheSignIn(t *testing.T) {
	for _, strict := range []bool{false, true} {
		m := newMachine(t)
		cfg := m.config()
		cfg.Strict = strict
		c, err := tokenkeep.Open(ctx, cfg)
		require.NoError(t, err)
		in := &rawClient{}
		require.NoError(t, c.Replace(ctx, in, cache.ReplaceHints{}))
		m.keyring.SetAbsent(true)
		in.data = []byte(tokens)
		err = c.Export(ctx, in, cache.ExportHints{})
		if strict {
			require.ErrorIs(t, err, persistence.ErrUnavailable)
			require.NotContains(t, err.Error(), planted)
			continue
		}
		require.NoError(t, err)
		require.Empty(t, m.files(), "nor was anything less safe started")
		m.keyring.SetAbsent(false)
		require.NoError(t, c.Export(ctx, in, cache.ExportHints{}))
		again, err := tokenkeep.Open(ctx, m.config())
		require.NoError(t, err)
		require.Equal(t, tokens, load(t, again))
	}
}

// A program that watches its plaintext cache sees what another one does that
// trades it up, and follows it.
func TestWatchWhileAnotherTradesUp(t *testing.T) {
	account := func(user string) string {
		return `"` + user + `":{"home_account_id":"` + user + `","environment":"login"}`
	}
	m := newMachine(t)
	ring := keyringtest.NewAbsent()
	cfg := m.config()
	cfg.Keyring, cfg.AllowPlaintext = ring, true
	running, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	save(t, running, `{"Account":{`+account("ann")+`}}`)
	watching, cancel := context.WithCancel(ctx)
	changes := running.Watch(watching, time.Hour)
	defer func() {
		cancel()
		for range changes {
		}
	}()
	next := func() persistence.Change {
		select {
		case change := <-changes:
			return change
		case <-time.After(4 * time.Minute): // only a defect takes so long
			t.Fatal("no change is reported")
			return persistence.Change{}
		}
	}
	ring.SetAbsent(false)
	cfg.Keyring = ring.Reopen()
	desktop, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, []string{"app.enc"}, m.files())
	save(t, desktop, `{"Account":{`+account("ann")+`,`+account("ben")+`}}`)
	for {
		change := next()
		require.Empty(t, change.Removed, "nobody is signed out by the move")
		if len(change.Accounts) == 2 {
			break
		}
		require.Len(t, change.Accounts, 1)
		require.Empty(t, change.Added)
	}
	require.Equal(t, "keyring", running.Describe().KeySource)
	save(t, desktop, "{}")
	require.Len(t, next().Removed, 2)
}
