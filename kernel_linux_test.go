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
