package tokenkeep_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// realKernel returns a configuration that keeps its key in the real keyring of the
// kernel. The key is removed at the end of the test.
func (m *machine) realKernel() tokenkeep.Config {
	cfg := m.config()
	cfg.Kernel, cfg.Store = keyring.Kernel(), "kernel"
	_, err := cfg.Kernel.Get(ctx, "tokenkeep/app", "nobody")
	env.Require(m.t, errors.Is(err, persistence.ErrNotFound), "the kernel's keyring does not work here")
	m.t.Cleanup(func() {
		c, err := tokenkeep.Open(ctx, cfg)
		require.NoError(m.t, err)
		require.NoError(m.t, c.Delete(ctx))
	})
	return cfg
}

const kernelVariable = "TOKENKEEP_KERNEL_PROCESS"

// TestKernelProcess opens the cache in that folder, and says how that went.
func TestKernelProcess(t *testing.T) {
	dir := os.Getenv(kernelVariable)
	if dir == "" {
		return
	}
	cfg := newMachine(t).config()
	cfg.Dir, cfg.Kernel = dir, keyring.Kernel()
	c, err := tokenkeep.Open(ctx, cfg)
	if err != nil {
		os.Stdout.WriteString("FAILED with " + persistence.ClassOf(err) + ": " + err.Error())
		return
	}
	os.Stdout.WriteString("LOADED " + load(t, c))
}

// A container that shares the folder and has a user namespace of its own has none
// of the host's keys. It is told so, and the host's sign-in stays.
func TestKernelKeyOfAnotherNamespace(t *testing.T) {
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.realKernel())
	require.NoError(t, err)
	save(t, c, tokens)
	exe, err := os.Executable()
	require.NoError(t, err)
	run := func(attr *syscall.SysProcAttr) (string, error) {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestKernelProcess$")
		cmd.Env = append(os.Environ(), kernelVariable+"="+m.dir, "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = attr
		out, err := cmd.Output()
		return string(out), err
	}
	out, err := run(nil) // the control: without the namespace it opens
	require.NoError(t, err, out)
	require.Contains(t, out, "LOADED "+tokens)

	me := []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
	group := []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	out, err = run(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: me, GidMappings: group})
	var ended *exec.ExitError
	env.Require(t, err == nil || errors.As(err, &ended), "no user namespace can be made here")
	require.NoError(t, err, out)
	require.Contains(t, out, "FAILED with unavailable: ")
	require.Contains(t, out, "another user namespace")
	require.Equal(t, []string{"app.enc"}, m.files())
	require.Equal(t, tokens, load(t, c))
}

// The key is in the kernel's keyring as long as the file needs it, and no longer.
func TestKernelKeyGoesWithTheFile(t *testing.T) {
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.realKernel())
	require.NoError(t, err)
	save(t, c, tokens)
	header, err := os.ReadFile(filepath.Join(m.dir, "app.enc"))
	require.NoError(t, err)
	id := strings.Fields(keyLine(header))[2]
	_, err = keyring.Kernel().Get(ctx, "tokenkeep/app", "tokenkeep key "+id)
	require.NoError(t, err)
	require.NoError(t, c.Delete(ctx))
	_, err = keyring.Kernel().Get(ctx, "tokenkeep/app", "tokenkeep key "+id)
	require.ErrorIs(t, err, persistence.ErrNotFound)
}

const restartVariable = "TOKENKEEP_RESTART_PROCESS"

// TestRestartProcess signs in with a key in what stands for the kernel's keyring, in
// the folder "items" of that folder, and says what was stored before.
func TestRestartProcess(t *testing.T) {
	dir := os.Getenv(restartVariable)
	if dir == "" {
		return
	}
	cfg := newMachine(t).config()
	cfg.Dir, cfg.Keyring, cfg.Kernel = filepath.Join(dir, "data"), keyringtest.NewAbsent(), keyringtest.NewDir(filepath.Join(dir, "items"))
	c, err := tokenkeep.Open(ctx, cfg)
	if err != nil {
		os.Stdout.WriteString("FAILED with " + persistence.ClassOf(err) + ": " + err.Error())
		return
	}
	had, err := use(c)
	require.NoError(t, err)
	os.Stdout.WriteString("HAD " + had + ".")
}

// A restart ends a sign-in in the kernel's keyring where the machine has an id. A
// container without one cannot tell a restart from another machine: it says so, and
// the file stays. Nor is the id of a machine alone a proof: machines are copied with it,
// and images of containers are made with one. The boot, the id and the machine's name are
// what the kernel and the system say, in a mount namespace.
func TestKernelSignInAfterARestart(t *testing.T) {
	env.Require(t, os.Geteuid() == 0 && env.CanMount(), "needs to mount file systems, as root")
	_, err := os.Stat("/etc/machine-id")
	env.Require(t, err == nil, "there is no /etc/machine-id to mount over")
	exe, err := os.Executable()
	require.NoError(t, err)
	const here, none = "92f6a4d1c5b84a8bb2a3f0a3c1d7e9f0", ""
	const (
		byItself = `for f in /etc/machine-id /var/lib/dbus/machine-id; do [ ! -e $f ] || mount --bind "$0/etc/machine-id" $f; done && { [ ! -e /etc/hostname ] || mount --bind "$0/etc/hostname" /etc/hostname; }`
		host     = `mount --bind "$0/etc" /etc`
		image    = `mount -t tmpfs tmpfs "$0/disk" && mkdir "$0/disk/work" "$0/disk/$2" && mount -t overlay overlay -o "lowerdir=$0/etc,upperdir=$0/disk/$2,workdir=$0/disk/work" /etc`
	)
	for name, c := range map[string]struct {
		before, after string // machine's ids, then its name
		boot          string // of the second process
		ends          bool
		etc           string // how the process comes to its /etc, byItself if it is ""
		container     string // of the second process; the first one's is "A"
	}{
		"a restart of a machine":                {here, here, "2", true, "", ""},
		"a restart where no id is known":        {none, none, "2", false, "", ""},
		"a restart since which an id is known":  {none, here, "2", false, "", ""},
		"another machine":                       {here, "00000000000000000000000000000001", "2", false, "", ""},
		"control: no restart, and an id":        {here, here, "1", true, "", ""},
		"control: no restart, where none known": {none, none, "1", true, "", ""},

		"a restart of a machine with a name":                {here + " pool-1", here + " pool-1", "2", true, host, ""},
		"a copy of the machine, or it was renamed":          {here + " pool-1", here + " pool-2", "2", false, host, ""},
		"a new container, with the id of the host":          {here + " a", here + " b", "2", true, "", ""},
		"a restart of a container of an image with an id":   {here + " a", here + " a", "2", true, image, "A"},
		"another container of that image":                   {here + " a", here + " a", "2", false, image, "B"},
		"control: a name is no reason where no id is known": {none + " a", none + " a", "1", true, host, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, folder := range []string{"etc", "disk"} {
				require.NoError(t, os.Mkdir(filepath.Join(dir, folder), 0o755))
			}
			etc := c.etc
			if etc == "" {
				etc = byItself
			}
			run := func(machine, boot, container string) string {
				id, name, _ := strings.Cut(machine, " ")
				for file, text := range map[string]string{"etc/machine-id": id, "etc/hostname": name, "boot": "00000000-0000-0000-0000-00000000000" + boot} {
					require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o644))
				}
				require.NoError(t, os.RemoveAll(filepath.Join(dir, "items"))) // a restart, or three days
				require.NoError(t, os.Mkdir(filepath.Join(dir, "items"), 0o700))
				cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", `mount --make-rprivate / && mount --bind "$0/boot" /proc/sys/kernel/random/boot_id && `+
					etc+` && exec "$1" -test.run='^TestRestartProcess$'`, dir, exe, container)
				cmd.Env = append(os.Environ(), restartVariable+"="+dir)
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, string(out))
				return string(out)
			}
			require.Contains(t, run(c.before, "1", "A"), "HAD {}.")
			path := filepath.Join(dir, "data", "app.enc")
			file, err := os.ReadFile(path)
			require.NoError(t, err)
			out := run(c.after, c.boot, c.container)
			aside, err := filepath.Glob(path + ".damaged-*")
			require.NoError(t, err)
			now, err := os.ReadFile(path)
			require.NoError(t, err)
			if c.ends {
				require.Contains(t, out, "HAD {}.")
				require.Len(t, aside, 1)
				require.NotEqual(t, file, now)
				return
			}
			require.Contains(t, out, "FAILED with unavailable")
			require.Empty(t, aside)
			require.Equal(t, file, now)
		})
	}
}
