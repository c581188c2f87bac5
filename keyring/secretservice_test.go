//go:build linux

package keyring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gokeyring "github.com/zalando/go-keyring"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() { programs["gokeyring"] = goKeyringProgram }

// goKeyringProgram is a program that uses go-keyring, which keeps its first
// connection for ever and so needs a process for each bus.
func goKeyringProgram(args []string) error {
	var err error
	op, args := args[0], args[1:]
	switch op {
	case "set":
		err = gokeyring.Set(args[0], args[1], args[2])
	case "get":
		var secret string
		secret, err = gokeyring.Get(args[0], args[1])
		fmt.Print(secret)
	case "delete":
		err = gokeyring.Delete(args[0], args[1])
	}
	if err != nil {
		fmt.Print(err)
	}
	return err
}

func runGoKeyring(t *testing.T, bus *secretservice.Bus, op string, args ...string) (output string, ok bool) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, append([]string{op}, args...)...)
	cmd.Env = append(bus.Env(), "TOKENKEEP_TEST_PROGRAM=gokeyring", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// useBus makes the bus the session bus of this process. There is never a
// moment without an address in which something might start a bus.
func useBus(t *testing.T, address string) {
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	t.Setenv("DISPLAY", "")
	t.Setenv("WAYLAND_DISPLAY", "")
}

func unlockedKeyring(t *testing.T) (*secretservice.Bus, *secretservice.Keyring) {
	bus := secretservice.StartBus(t)
	k := bus.StartKeyring(t, true)
	useBus(t, bus.Address)
	return bus, k
}

// noLeaks fails the test if it leaves goroutines or open files behind.
func noLeaks(t *testing.T) {
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	t.Cleanup(func() {
		// Goroutines that were told to end need a moment to do so.
		for giveUp := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			g, f := runtime.NumGoroutine(), openFiles(t)
			if g <= goroutines && f <= files {
				return
			}
			if time.Now().After(giveUp) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines and %d open files are left behind:\n%s", g-goroutines, f-files, stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

func TestSecretServiceKeepsItems(t *testing.T) {
	bus, _ := unlockedKeyring(t)
	ctx := t.Context()
	k := System()
	clients := bus.Clients(t)
	noLeaks(t)

	_, err := k.Get(ctx, "app", "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.ErrorIs(t, k.Delete(ctx, "app", "alice"), persistence.ErrNotFound)

	large := strings.Repeat("0123456789abcdef", 1<<14) // 256 KiB
	for _, secret := range []string{"first", "", "two\nlines and ünïcode", "\x00\xff not UTF-8", large} {
		require.NoError(t, k.Set(ctx, "app", "alice", secret))
		got, err := k.Get(ctx, "app", "alice")
		require.NoError(t, err)
		require.True(t, secret == got, "what was set must be got")
	}
	require.Len(t, bus.Items(t), 1, "a Set replaces what was there")
	require.NoError(t, k.Set(ctx, "app", "bob", "his"))
	require.NoError(t, k.Set(ctx, "other", "alice", "other's"))
	require.NoError(t, k.Delete(ctx, "app", "alice"))
	_, err = k.Get(ctx, "app", "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	got, err := k.Get(ctx, "app", "bob")
	require.NoError(t, err)
	require.Equal(t, "his", got)

	require.Eventually(t, func() bool { return bus.Clients(t) == clients }, time.Minute, 5*time.Millisecond,
		"no connection is left on the bus")
}

func TestSecretServiceSharesItemsWithGoKeyring(t *testing.T) {
	bus, _ := unlockedKeyring(t)
	ctx := t.Context()
	k := System()

	out, ok := runGoKeyring(t, bus, "set", "app", "alice", "by go-keyring")
	require.True(t, ok, out)
	theirs := bus.Items(t)
	got, err := k.Get(ctx, "app", "alice")
	require.NoError(t, err)
	require.Equal(t, "by go-keyring", got)

	require.NoError(t, k.Set(ctx, "app", "alice", "by us"))
	require.Equal(t, theirs, bus.Items(t), "label and attributes are the same, and no second item is made")
	out, ok = runGoKeyring(t, bus, "get", "app", "alice")
	require.True(t, ok, out)
	require.Equal(t, "by us", out)

	out, ok = runGoKeyring(t, bus, "delete", "app", "alice")
	require.True(t, ok, out)
	_, err = k.Get(ctx, "app", "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)

	out, ok = runGoKeyring(t, bus, "set", "app", "alice", "again")
	require.True(t, ok, out)
	require.NoError(t, k.Delete(ctx, "app", "alice"))
	out, ok = runGoKeyring(t, bus, "get", "app", "alice")
	require.False(t, ok, "what we delete is gone for go-keyring")
	require.Contains(t, out, "not found")
}

func TestSecretServiceSharesItemsWithSecretTool(t *testing.T) {
	secretservice.Need(t, "secret-tool")
	bus, _ := unlockedKeyring(t)
	require.NoError(t, System().Set(t.Context(), "app", "alice", "by us"))
	tool := func(args ...string) string {
		cmd := exec.Command("secret-tool", args...)
		cmd.Env = bus.Env()
		out, err := cmd.Output()
		require.NoError(t, err)
		return string(out)
	}
	require.Equal(t, "by us", tool("lookup", "service", "app", "username", "alice"))
	tool("clear", "service", "app", "username", "alice")
	_, err := System().Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
}

// Other programs can make items that have our attributes and more, or items
// that are twins of ours.
func TestSecretServiceWithSeveralMatches(t *testing.T) {
	bus, _ := unlockedKeyring(t)
	ctx := t.Context()
	k := System()
	ours := map[string]string{"service": "app", "username": "alice"}
	more := map[string]string{"service": "app", "username": "alice", "application": "Python keyring library"}
	for range 2 { // so that neither order of making decides
		bus.AddItem(t, "twin", ours, "twin")
		bus.AddItem(t, "python", more, "theirs")
	}
	require.Len(t, bus.Items(t), 4)
	require.NoError(t, k.Set(ctx, "app", "alice", "new"))
	got, err := k.Get(ctx, "app", "alice")
	require.NoError(t, err)
	require.Equal(t, "new", got, "Get after Set returns what was set")
	twins := 0
	for _, item := range bus.Items(t) {
		if maps.Equal(item.Attributes, ours) {
			twins++
		}
	}
	require.Equal(t, 1, twins, "Set leaves no twin of an older value")
	require.NoError(t, k.Delete(ctx, "app", "alice"))
	require.Empty(t, bus.Items(t), "Delete removes all that a Get might return")
}

// noUserBus hides the bus that this user may have at its fixed path.
func noUserBus(t *testing.T) {
	before := runUser
	runUser = t.TempDir()
	t.Cleanup(func() { runUser = before })
}

// refusals are the states in which the keyring cannot work, each made for real.
var refusals = []struct {
	name      string
	make      func(t *testing.T) // sets the session bus
	class     error
	situation Situation
	says      string
	helps     string // in the remedy
	hangs     bool   // the call ends only with its time
}{
	{
		name:      "no bus address",
		situation: NoBus,
		make: func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
			noUserBus(t)
		},
		class: persistence.ErrUnavailable, says: "there is no D-Bus session bus",
	},
	{
		name:      "autolaunch address",
		situation: NoBus,
		make:      func(t *testing.T) { useBus(t, "autolaunch:scope=*") },
		class:     persistence.ErrUnavailable, says: "names no unix socket",
	},
	{
		name:      "bus address names nothing",
		situation: NoBus,
		make:      func(t *testing.T) { useBus(t, "unix:path="+filepath.Join(t.TempDir(), "nothing")) },
		class:     persistence.ErrUnavailable, says: "cannot be reached",
	},
	{
		name:      "bus without a service",
		situation: NoService,
		make:      func(t *testing.T) { useBus(t, secretservice.StartBus(t).Address) },
		class:     persistence.ErrUnavailable, says: "has no Secret Service",
	},
	{
		name:      "no default collection",
		situation: NoCollection,
		make: func(t *testing.T) {
			bus := secretservice.StartBus(t)
			bus.StartKeyring(t, false)
			useBus(t, bus.Address)
		},
		class: persistence.ErrUnavailable, says: "no default collection",
	},
	{
		name:      "KWallet without a wallet",
		situation: NoCollection,
		make: func(t *testing.T) {
			bus := secretservice.StartBus(t)
			bus.StartKWallet(t)
			useBus(t, bus.Address)
		},
		class: persistence.ErrUnavailable, says: "no default collection", helps: "KWalletManager",
	},
	{
		name:      "KeePassXC without a group",
		situation: NoCollection,
		make: func(t *testing.T) {
			bus := secretservice.StartBus(t)
			bus.StartEmpty(t, "org.keepassxc.KeePassXC.MainWindow")
			useBus(t, bus.Address)
		},
		class: persistence.ErrUnavailable, says: "no default collection", helps: "KeePassXC exposes no group",
	},
	{
		name:      "another keyring beside KeePassXC",
		situation: NoCollection,
		make: func(t *testing.T) {
			bus := secretservice.StartBus(t)
			bus.StartEmpty(t)
			_, err := bus.Conn().RequestName("org.keepassxc.KeePassXC.MainWindow", 0)
			require.NoError(t, err)
			useBus(t, bus.Address)
		},
		class: persistence.ErrUnavailable, says: "no default collection", helps: "named login in Seahorse",
	},
	{
		name:      "bus that denies",
		situation: BusRefused,
		make: func(t *testing.T) {
			bus := secretservice.StartDenyingBus(t)
			bus.StartEmpty(t)
			useBus(t, bus.Address)
		},
		class: persistence.ErrUnavailable, says: "does not let this program use", helps: "AppArmor",
	},
	{
		name:      "bus that denies a snap",
		situation: BusRefused,
		make: func(t *testing.T) {
			bus := secretservice.StartDenyingBus(t)
			bus.StartEmpty(t)
			useBus(t, bus.Address)
			t.Setenv(snapVariable, "contoso_2")
		},
		class: persistence.ErrUnavailable, says: "does not let this program use", helps: "with: sudo snap connect contoso_2:password-manager-service",
	},
	{
		name:      "Flatpak's proxy",
		situation: BusRefused,
		make: func(t *testing.T) {
			bus, _ := unlockedKeyring(t)
			useBus(t, bus.StartProxy(t))
			t.Setenv(flatpakVariable, "com.contoso.App")
		},
		class: persistence.ErrUnavailable, says: "shows it no Secret Service", helps: "with: flatpak override --user --talk-name=org.freedesktop.secrets com.contoso.App",
	},
	{
		name:      "WSL without a bus",
		situation: NoBus,
		make: func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
			noUserBus(t)
			t.Setenv(wslVariable, "Debian")
		},
		class: persistence.ErrUnavailable, says: "there is no D-Bus session bus", helps: "/etc/wsl.conf",
	},
	{
		name:      "WSL without a keyring",
		situation: NoService,
		make: func(t *testing.T) {
			useBus(t, secretservice.StartBus(t).Address)
			t.Setenv(wslVariable, "Debian")
		},
		class: persistence.ErrUnavailable, says: "has no Secret Service", helps: "gnome-keyring and dbus-user-session",
	},
	{
		name:      "locked, no prompter",
		situation: Locked,
		make: func(t *testing.T) {
			_, k := unlockedKeyring(t)
			k.Lock(t)
		},
		class: persistence.ErrKeyringLocked, says: "would have to be asked",
	},
	{
		name:      "locked, deaf prompter",
		situation: Locked,
		make: func(t *testing.T) {
			bus, k := unlockedKeyring(t)
			k.Lock(t)
			asked := bus.DeafPrompter(t)
			t.Cleanup(func() { require.Empty(t, asked, "nobody may be asked by default") })
		},
		class: persistence.ErrKeyringLocked, says: "would have to be asked",
	},
	{
		name:      "deaf bus",
		situation: NoAnswer,
		make:      func(t *testing.T) { useBus(t, secretservice.DeafBus(t)) },
		hangs:     true, class: persistence.ErrUnavailable, says: "did not answer",
	},
	{
		name:      "bus that does not accept",
		situation: NoAnswer,
		make:      func(t *testing.T) { useBus(t, fullBus(t)) },
		hangs:     true, class: persistence.ErrUnavailable, says: "did not answer",
	},
	{
		name:      "stopped bus",
		situation: NoAnswer,
		make: func(t *testing.T) {
			bus, _ := unlockedKeyring(t)
			bus.Pause(t)
		},
		hangs: true, class: persistence.ErrUnavailable, says: "did not answer",
	},
	{
		name:      "stopped daemon",
		situation: NoAnswer,
		make: func(t *testing.T) {
			_, k := unlockedKeyring(t)
			k.Pause(t)
		},
		hangs: true, class: persistence.ErrUnavailable, says: "did not answer",
	},
}

// fullBus listens, and its queue of those who wait to be accepted is full.
func fullBus(t *testing.T) (address string) {
	dir, err := os.MkdirTemp("", "bus")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := &unix.SockaddrUnix{Name: filepath.Join(dir, "bus")}
	socket := func() int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		require.NoError(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	listener := socket()
	require.NoError(t, unix.Bind(listener, at))
	require.NoError(t, unix.Listen(listener, 0))
	for unix.Connect(socket(), at) == nil {
	}
	return "unix:path=" + at.Name
}

func TestSecretServiceRefuses(t *testing.T) {
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			for _, variable := range []string{flatpakVariable, snapVariable, wslVariable} {
				t.Setenv(variable, "")
			}
			r.make(t)
			noLeaks(t)
			const secret = "planted-secret"
			timeout := defaultTimeout("linux")
			if r.hangs {
				timeout = 300 * time.Millisecond
			}
			k := System(WithTimeout(timeout))
			calls := map[string]func(context.Context) error{
				"get":    func(ctx context.Context) error { _, err := k.Get(ctx, "app", "alice"); return err },
				"set":    func(ctx context.Context) error { return k.Set(ctx, "app", "alice", secret) },
				"set 1M": func(ctx context.Context) error { return k.Set(ctx, "app", "alice", strings.Repeat(secret, 1<<16)) },
				"delete": func(ctx context.Context) error { return k.Delete(ctx, "app", "alice") },
			}
			for name, call := range calls {
				start := time.Now()
				err := call(t.Context())
				t.Logf("%s refused after %v: %v", name, time.Since(start).Round(10*time.Microsecond), err)
				require.ErrorIs(t, err, r.class)
				require.Equal(t, r.situation, SituationOf(err))
				require.ErrorContains(t, err, r.says)
				require.NotContains(t, err.Error(), secret)
				var e *persistence.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, "app/alice", e.Location)
				require.NotEmpty(t, e.Remedy)
				require.Contains(t, e.Remedy, r.helps)

				if r.hangs {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					// The caller's own context counts, too, and is no
					// verdict on the keyring.
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					err = call(ctx)
					cancel()
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.NotErrorIs(t, err, persistence.ErrUnavailable)
					require.Empty(t, SituationOf(err))
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				require.ErrorIs(t, call(ctx), context.Canceled)
			}
		})
	}
}

// In the middle of a call whose service is killed, the call ends at once.
func TestSecretServiceKilledDuringACall(t *testing.T) {
	_, daemon := unlockedKeyring(t)
	noLeaks(t)
	daemon.Pause(t)
	done := make(chan error, 1)
	go func() {
		_, err := System(WithTimeout(time.Hour)).Get(t.Context(), "app", "alice")
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatal("a stopped daemon answered: ", err)
	case <-time.After(100 * time.Millisecond): // so that the call waits for its answer; if not, the test is only easier
	}
	daemon.Kill(t)
	err := <-done
	t.Log(err)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
}

// What a killed daemon kept is there again in the next one.
func TestSecretServiceRestarted(t *testing.T) {
	bus, daemon := unlockedKeyring(t)
	k := System()
	require.NoError(t, k.Set(t.Context(), "app", "alice", "kept"))
	daemon.Kill(t)
	require.Eventually(t, func() bool {
		_, err := k.Get(t.Context(), "app", "alice")
		return errors.Is(err, persistence.ErrUnavailable)
	}, time.Minute, time.Millisecond)
	bus.StartKeyring(t, true)
	got, err := k.Get(t.Context(), "app", "alice")
	require.NoError(t, err)
	require.Equal(t, "kept", got)
}

func TestSecretServicePrompts(t *testing.T) {
	fake := func(t *testing.T, onPrompt func(*secretservice.Fake)) *secretservice.Fake {
		bus := secretservice.StartBus(t)
		f := bus.StartFake(t, onPrompt)
		useBus(t, bus.Address)
		noLeaks(t)
		return f
	}
	get := func(ctx context.Context, opts ...Option) error {
		secret, err := System(opts...).Get(ctx, "app", "alice")
		if err == nil {
			if secret != secretservice.Planted {
				return errors.New("another secret")
			}
			return nil
		}
		if strings.Contains(err.Error(), secretservice.Planted) {
			return errors.New("a secret in an error")
		}
		return err
	}
	t.Run("not allowed", func(t *testing.T) {
		f := fake(t, nil)
		err := get(t.Context())
		require.ErrorIs(t, err, persistence.ErrKeyringLocked)
		require.Equal(t, Locked, SituationOf(err))
		<-f.Dismissed
		require.Empty(t, f.Shown)
	})
	t.Run("answered", func(t *testing.T) {
		f := fake(t, func(f *secretservice.Fake) { go f.Complete(false) })
		// The timeout does not count the time that a person takes.
		require.NoError(t, get(t.Context(), WithPrompt()))
		require.Len(t, f.Shown, 1)
		require.Empty(t, f.Dismissed)
	})
	t.Run("answered after the timeout", func(t *testing.T) {
		// All but the answer must come in time, which takes a slow machine longer.
		for timeout := 200 * time.Millisecond; ; timeout *= 4 {
			fake(t, func(f *secretservice.Fake) { time.AfterFunc(2*timeout, func() { f.Complete(false) }) })
			err := get(t.Context(), WithPrompt(), WithTimeout(timeout))
			if err == nil {
				return
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, timeout, 30*time.Second, "%v", err)
		}
	})
	t.Run("declined", func(t *testing.T) {
		fake(t, func(f *secretservice.Fake) { go f.Complete(true) })
		err := get(t.Context(), WithPrompt())
		require.ErrorIs(t, err, persistence.ErrKeyringLocked)
		require.Equal(t, Declined, SituationOf(err))
	})
	t.Run("never answered", func(t *testing.T) {
		env.Patiently(t, 100*time.Millisecond, func(ctx context.Context) bool {
			f := fake(t, nil)
			err := get(ctx, WithPrompt())
			require.ErrorIs(t, err, context.DeadlineExceeded)
			if !errors.Is(err, persistence.ErrKeyringLocked) {
				return false // it did not come to the question
			}
			require.Equal(t, Unanswered, SituationOf(err))
			<-f.Dismissed // the question leaves the screen
			return true
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := fake(t, func(*secretservice.Fake) { cancel() })
		require.ErrorIs(t, get(ctx, WithPrompt()), context.Canceled)
		<-f.Dismissed
	})
	t.Run("service ends", func(t *testing.T) {
		fake(t, func(f *secretservice.Fake) { go f.Die() })
		err := get(t.Context(), WithPrompt())
		require.ErrorIs(t, err, persistence.ErrUnavailable)
		require.Equal(t, Failed, SituationOf(err))
	})
	t.Run("careless error", func(t *testing.T) {
		fake(t, func(f *secretservice.Fake) { go f.Complete(false) })
		err := System(WithPrompt()).Delete(t.Context(), "app", "alice")
		require.ErrorContains(t, err, "org.example.Careless")
		require.NotContains(t, err.Error(), secretservice.Planted)
	})
}

// With a real keyring whose dialog nobody answers, the wait ends with the context.
func TestSecretServiceRealPromptUnanswered(t *testing.T) {
	bus, daemon := unlockedKeyring(t)
	daemon.Lock(t)
	asked := bus.DeafPrompter(t)
	noLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-asked // the dialog is up
		cancel()
	}()
	_, err := System(WithPrompt()).Get(ctx, "app", "alice")
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.ErrorIs(t, err, context.Canceled)
}

// The Persistence and the keys on a real keyring.
func TestSecretServiceAsBackend(t *testing.T) {
	bus, daemon := unlockedKeyring(t)
	ctx := t.Context()
	data := []byte(strings.Repeat("tokens\x00\xff", 10_000))
	lock := persistence.NewFileLock(filepath.Join(t.TempDir(), "cache.lock"))
	for _, k := range []Keyring{System(), limited{System()}} { // whole, and split
		p, err := New(k, "app", "alice", lock)
		require.NoError(t, err)
		_, err = p.Load(ctx)
		require.ErrorIs(t, err, persistence.ErrNotFound)
		require.NoError(t, p.Save(ctx, data))
		got, err := p.Load(ctx)
		require.NoError(t, err)
		require.True(t, string(data) == string(got))
		require.NoError(t, p.Delete(ctx))
		require.Empty(t, bus.Items(t))
	}
	keys := NewKeys(System(), "app")
	ref, key, err := keys.NewKey(ctx, "id")
	require.NoError(t, err)
	require.Equal(t, "Password for 'tokenkeep key id' on 'app'", bus.Items(t)[0].Label)
	got, err := keys.Key(ctx, ref)
	require.NoError(t, err)
	require.Equal(t, key, got)
	daemon.Lock(t)
	_, err = keys.Key(ctx, ref)
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.NotErrorIs(t, err, persistence.ErrKeyMissing)
}

// A second implementation. Its wallet is opened by the user's login, and no
// program may have used it by the Secret Service since.
func TestKWallet(t *testing.T) {
	bus := secretservice.StartBus(t)
	wallet := bus.StartKWalletWithWallet(t)
	useBus(t, bus.Address)
	ctx := t.Context()
	for _, k := range []Limited{System(), System(WithPrompt())} {
		_, err := System().Get(ctx, "app", "alice")
		require.ErrorIs(t, err, persistence.ErrKeyringLocked)
		wallet.Open(t)
		noLeaks(t)
		_, err = k.Get(ctx, "app", "alice")
		require.ErrorIs(t, err, persistence.ErrNotFound)
		require.ErrorIs(t, k.Delete(ctx, "app", "alice"), persistence.ErrNotFound)
		for _, secret := range []string{"first", "", "two\nlines and ünïcode", strings.Repeat("0123456789abcdef", 1<<14)} {
			require.NoError(t, k.Set(ctx, "app", "alice", secret))
			got, err := k.Get(ctx, "app", "alice")
			require.NoError(t, err)
			require.True(t, secret == got, "what was set must be got: %d bytes and %d", len(secret), len(got))
		}
		require.NoError(t, k.Set(ctx, "app", "bob", "his"))
		require.NoError(t, k.Delete(ctx, "app", "alice"))
		_, err = k.Get(ctx, "app", "alice")
		require.ErrorIs(t, err, persistence.ErrNotFound)
		got, err := k.Get(ctx, "app", "bob")
		require.NoError(t, err)
		require.Equal(t, "his", got)
		require.NoError(t, k.Delete(ctx, "app", "bob"))

		keys := NewKeys(k, "app")
		ref, key, err := keys.NewKey(ctx, "id")
		require.NoError(t, err)
		same, err := keys.Key(ctx, ref)
		require.NoError(t, err)
		require.Equal(t, key, same)
		wallet.Close(t)
		_, err = NewKeys(System(), "app").Key(ctx, ref)
		require.ErrorIs(t, err, persistence.ErrKeyringLocked)
		wallet.Open(t)
		require.NoError(t, keys.DeleteKey(ctx, ref))
		_, err = keys.Key(ctx, ref)
		require.ErrorIs(t, err, persistence.ErrKeyMissing, "the wallet is open, also for another connection")
		wallet.Close(t)
	}
}

func TestBusAddresses(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	for env, want := range map[string][]string{
		"unix:path=/run/user/1000/bus":                                    {"/run/user/1000/bus"},
		"unix:abstract=/tmp/dbus-x,guid=0123":                             {"@/tmp/dbus-x"},
		"unix:guid=01,path=/tmp/with%20space":                             {"/tmp/with space"},
		"tcp:host=localhost,port=1;unix:path=/a;unix:path=/b":             {"/a", "/b"},
		"unix:runtime=yes":                                                {filepath.Join(dir, "bus")},
		"tcp:host=localhost,port=1":                                       nil,
		"launchd:env=DBUS_LAUNCHD_SESSION_BUS_SOCKET;autolaunch:;garbage": nil,
		"unixexec:path=/bin/false":                                        nil,
	} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", env)
		got, err := busAddresses()
		require.Equal(t, want, got, env)
		if want == nil {
			require.ErrorIs(t, err, persistence.ErrUnavailable)
		}
	}
	// Without the variable, the bus in the runtime folder, if it is a socket of ours.
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bus"), nil, 0o600))
	noUserBus(t)
	_, err := busAddresses()
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	bus := secretservice.DeafBus(t)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Dir(strings.TrimPrefix(bus, "unix:path=")))
	got, err := busAddresses()
	require.NoError(t, err)
	require.Equal(t, []string{strings.TrimPrefix(bus, "unix:path=")}, got)
}

func TestSecretServiceLists(t *testing.T) {
	_, service := unlockedKeyring(t)
	k := System()
	lister, ok := k.(Lister)
	require.True(t, ok)
	users, err := lister.List(t.Context(), "tokenkeep/list")
	require.NoError(t, err)
	require.Empty(t, users)
	for _, user := range []string{"b", "a é"} {
		require.NoError(t, k.Set(t.Context(), "tokenkeep/list", user, "planted-secret"))
	}
	require.NoError(t, k.Set(t.Context(), "tokenkeep/another", "c", "x"))
	users, err = lister.List(t.Context(), "tokenkeep/list")
	require.NoError(t, err)
	require.Equal(t, []string{"a é", "b"}, users)
	_, err = lister.List(t.Context(), "")
	require.Error(t, err)
	service.Lock(t)
	_, err = lister.List(t.Context(), "tokenkeep/list")
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
}
