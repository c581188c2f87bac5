package keyring_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// session makes a bus the session bus of this process.
func session(t *testing.T) *secretservice.Bus {
	bus := secretservice.StartBus(t)
	use(t, bus)
	return bus
}

func use(t *testing.T, bus *secretservice.Bus) {
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", bus.Address)
	t.Setenv("DISPLAY", "")
	t.Setenv("WAYLAND_DISPLAY", "")
}

// clear removes every item of a service, as its user would.
func clear(t *testing.T, bus *secretservice.Bus, service string) {
	t.Helper()
	cmd := exec.Command("secret-tool", "clear", "service", service)
	cmd.Env = bus.Env()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func init() { keyring.AddProgram("add", addProgram) }

// addProgram opens the cache in a folder, once its standard input ends, and adds
// a line.
func addProgram(args []string) error {
	ctx := context.Background()
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		return errors.New("something came by standard input")
	}
	cfg := tokenkeep.Config{Name: "contoso-cli", Dir: args[0], Store: "keyring"}
	if args[2] == "kernel" {
		cfg.Keyring = keyring.Kernel()
		cfg.Name = args[3]
	}
	c, err := tokenkeep.Open(ctx, cfg)
	if err != nil {
		return err
	}
	return c.Update(ctx, func(now []byte) ([]byte, error) {
		return fmt.Appendf(bytes.Clone(now), "%s\n", args[1]), nil
	})
}

// startAtOnce runs n processes on an empty folder and returns what they stored.
func startAtOnce(t *testing.T, n int, cfg tokenkeep.Config, args ...string) string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	gate, open, err := os.Pipe()
	require.NoError(t, err)
	defer gate.Close()
	running := make([]*exec.Cmd, n)
	for i := range running {
		running[i] = exec.CommandContext(t.Context(), exe, append([]string{cfg.Dir, fmt.Sprintf("process %d", i)}, args...)...)
		running[i].Env = append(os.Environ(), "TOKENKEEP_TEST_PROGRAM=add", "GORACE=atexit_sleep_ms=0")
		running[i].Stdin = gate
		running[i].Stderr = os.Stderr
		require.NoError(t, running[i].Start())
	}
	open.Close()
	for _, p := range running {
		require.NoError(t, p.Wait())
	}
	c, err := tokenkeep.Open(t.Context(), cfg)
	require.NoError(t, err)
	data, err := c.Load(t.Context())
	require.NoError(t, err)
	return string(data)
}

func TestProcessesStartAtOnce(t *testing.T) {
	const n = 6
	check := func(t *testing.T, data string) {
		require.Equal(t, n, strings.Count(data, "\n"), "%s", data)
		for i := range n {
			require.Contains(t, data, fmt.Sprintf("process %d\n", i))
		}
	}
	t.Run("GNOME Keyring", func(t *testing.T) {
		bus := session(t)
		bus.StartKeyring(t, true)
		check(t, startAtOnce(t, n, tokenkeep.Config{Name: "contoso-cli", Dir: t.TempDir(), Store: "keyring"}, "system"))
		require.Len(t, bus.Items(t), 1, "one key was made, and none is left over")
		item := bus.Items(t)[0]
		require.Contains(t, item.Label, "contoso-cli", "its user sees what it belongs to")
		require.Contains(t, item.Label, "tokenkeep key")
		require.Contains(t, item.Attributes["service"], "contoso-cli")
	})
	t.Run("kernel", func(t *testing.T) {
		k, name := kernelKeyring(t)
		check(t, startAtOnce(t, n, tokenkeep.Config{Name: name, Dir: t.TempDir(), Store: "keyring", Keyring: k}, "kernel", name))
	})
}

// kernelKeyring returns the kernel's, and the name of a cache that nobody has.
func kernelKeyring(t *testing.T) (keyring.Limited, string) {
	k, name := keyring.Kernel(), "t"+strings.ToLower(rand.Text())
	_, err := k.Get(t.Context(), name, "x")
	env.Require(t, errors.Is(err, persistence.ErrNotFound), fmt.Sprintf("the kernel keyring does not work here: %v", err))
	keyring.ForgetKernel(t, name)
	return k, name
}

// The key is gone after a reboot: then the file is set aside, with a warning,
// and the cache is empty.
func TestKernelKeyGone(t *testing.T) {
	ctx := t.Context()
	k, name := kernelKeyring(t)
	var warned []fallback.Warning
	spy := &recorder{Limited: k}
	cfg := tokenkeep.Config{Name: name, Dir: t.TempDir(), Store: "keyring", Keyring: spy,
		Warn: func(w fallback.Warning) { warned = append(warned, w) }}
	c, err := tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.NoError(t, c.Update(ctx, func([]byte) ([]byte, error) { return []byte("{}"), nil }))
	require.NotEmpty(t, spy.set)
	spy.forget(t)
	require.Empty(t, warned)
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	_, err = c.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NotEmpty(t, warned)
}

// recorder remembers the items that were made.
type recorder struct {
	keyring.Limited
	set [][2]string
}

func (r *recorder) Set(ctx context.Context, service, user, secret string) error {
	r.set = append(r.set, [2]string{service, user})
	return r.Limited.Set(ctx, service, user, secret)
}

func (r *recorder) forget(t *testing.T) {
	for _, item := range r.set {
		require.NoError(t, r.Delete(t.Context(), item[0], item[1]))
	}
	r.set = nil
}

// What became of the key decides the class of the error.
func TestKeysMeanwhile(t *testing.T) {
	secretservice.Need(t, "secret-tool")
	ctx := t.Context()
	bus := session(t)
	daemon := bus.StartKeyring(t, true)
	path := filepath.Join(t.TempDir(), "cache.enc")
	file := func() *encrypted.File {
		f, err := encrypted.New(path, keyring.NewKeys(keyring.System(), "contoso-cli"), nil)
		require.NoError(t, err)
		return f
	}
	require.NoError(t, file().Save(ctx, []byte("tokens")))
	loads := func() {
		t.Helper()
		data, err := file().Load(ctx)
		require.NoError(t, err)
		require.Equal(t, "tokens", string(data))
	}
	fails := func(class error) {
		t.Helper()
		_, err := file().Load(ctx)
		require.ErrorIs(t, err, class)
		for _, other := range []error{persistence.ErrKeyMissing, persistence.ErrKeyringLocked, persistence.ErrUnavailable, persistence.ErrNotFound, persistence.ErrCorrupt, persistence.ErrWrongKey} {
			require.Equal(t, other == class, errors.Is(err, other), "%v is %v", err, other)
		}
	}
	loads()
	running := file()
	_, err := running.Load(ctx)
	require.NoError(t, err)

	daemon.Lock(t)
	fails(persistence.ErrKeyringLocked)

	// The service is replaced, by one that nobody has unlocked.
	daemon.Kill(t)
	bus.AwaitNoService(t)
	fails(persistence.ErrUnavailable)
	daemon = bus.StartKeyring(t, false)
	fails(persistence.ErrKeyringLocked)
	data, err := running.Load(ctx)
	require.NoError(t, err, "a process that has the key goes on")
	require.Equal(t, "tokens", string(data))
	require.NoError(t, running.Save(ctx, []byte("tokens")))
	daemon.Kill(t)
	bus.AwaitNoService(t)
	bus.StartKeyring(t, true)
	loads()

	// A second keyring, of another home, on another bus: it keeps new keys, and does
	// not have this one. The cache stays where it is.
	other := secretservice.StartBus(t)
	other.StartKeyring(t, true)
	use(t, other)
	fails(persistence.ErrUnavailable)
	require.ErrorIs(t, file().Check(ctx), persistence.ErrUnavailable)
	_, rev, err := file().LoadRevision(ctx)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	_, err = file().SetAside(ctx, rev)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Empty(t, other.Items(t))
	use(t, bus)
	loads()

	// A file of an older backup: the key of before the last rotation is kept,
	// that of before the one before is not.
	backup, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, file().Rotate(ctx, keyring.NewKeys(keyring.System(), "contoso-cli")))
	loads()
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, backup, 0o600))
	loads()
	require.NoError(t, os.WriteFile(path, now, 0o600))
	require.NoError(t, file().Rotate(ctx, keyring.NewKeys(keyring.System(), "contoso-cli")))
	require.Len(t, bus.Items(t), 2)
	require.NoError(t, os.WriteFile(path, backup, 0o600))
	fails(persistence.ErrKeyMissing)

	// The key is deleted by the user.
	require.NoError(t, os.WriteFile(path, now, 0o600))
	loads()
	clear(t, bus, "contoso-cli")
	fails(persistence.ErrKeyMissing)
}

// A value in the keyring that its user deletes, or replaces by that of an older
// keyring, under running processes.
func TestItemMeanwhile(t *testing.T) {
	secretservice.Need(t, "secret-tool")
	ctx := t.Context()
	bus := session(t)
	bus.StartKeyring(t, true)
	lock := filepath.Join(t.TempDir(), "cache.lock")
	open := func() (persistence.Versioned, *persistence.Cache) {
		p, err := keyring.New(keyring.System(), "contoso-cli", "tokens", persistence.NewFileLock(lock))
		require.NoError(t, err)
		c, err := persistence.New(p)
		require.NoError(t, err)
		return p, c
	}
	set := func(c *persistence.Cache, text string) {
		t.Helper()
		require.NoError(t, c.Update(ctx, func([]byte) ([]byte, error) { return []byte(text), nil }))
	}
	_, running := open()
	set(running, "old")
	older, err := keyring.System().Get(ctx, "contoso-cli", "tokens")
	require.NoError(t, err)
	set(running, "new")
	p, _ := open()
	stale, err := p.Revision(ctx)
	require.NoError(t, err)

	same := func(want string, wantErr error) {
		t.Helper()
		for range 2 {
			p, c := open()
			data, err := c.Load(ctx)
			require.ErrorIs(t, err, wantErr)
			require.Equal(t, want, string(data))
			// Who has looked has a revision again that is true.
			_, loaded, _ := p.LoadRevision(ctx)
			rev, err := p.Revision(ctx)
			require.NoError(t, err)
			require.Equal(t, loaded, rev)
			require.NotEqual(t, stale, rev)
		}
	}
	clear(t, bus, "contoso-cli")
	same("", persistence.ErrNotFound)
	set(running, "again")
	require.NoError(t, keyring.System().Set(ctx, "contoso-cli", "tokens", older))
	same("old", nil)
	set(running, "and again")
	_, c := open()
	data, err := c.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, "and again", string(data))
	require.Len(t, bus.Items(t), 1)
}
