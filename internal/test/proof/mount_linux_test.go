package proof

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// With this variable set, the test program runs in a mount namespace of its own.
const mountsVariable = "TOKENKEEP_PROOF_MOUNTS"

func init() { programs["try to mount"] = func([]string) error { return tryToMount() } }

// tryToMount mounts a tmpfs where that hides nothing that is needed.
func tryToMount() error {
	dir, err := os.MkdirTemp("", "mount")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return unix.Unmount(dir, 0)
}

// onlyLong skips what takes minutes or needs loop devices.
func onlyLong(t *testing.T) {
	t.Helper()
	if !long {
		t.Skip("takes minutes, or needs loop devices: runs with TOKENKEEP_LONG=1")
	}
}

// ownMounts makes the rest of the test run in a mount namespace of its own,
// whose mounts end with it: it returns true there. In the test program that the
// test was started in it returns false, after the one there has run.
func ownMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mountsVariable) != "" {
		return true
	}
	program, err := executable()
	require.NoError(t, err)
	run := func(env string, args ...string) ([]byte, error) {
		exe, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), exe, args...)
		cmd.Env = append(os.Environ(), env, executableVariable+"="+program, "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if os.Geteuid() != 0 {
			cmd.SysProcAttr.Unshareflags = 0
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		return cmd.CombinedOutput()
	}
	out, err := run(programVariable + "=try to mount")
	env.Require(t, err == nil, fmt.Sprintf("needs to mount a tmpfs in a namespace of its own, as root or with user namespaces: %v: %s", err, out))
	var pattern []string
	for name := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(name)+"$")
	}
	out, err = run(mountsVariable+"=1", "-test.run="+strings.Join(pattern, "/"), "-test.v", "-test.timeout=0")
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")) || err != nil {
		t.Errorf("in a mount namespace: %v\n%s", err, out)
		return false
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "=== ") {
			t.Log(strings.TrimRight(line, "\n"))
		}
	}
	return false
}

// volume is a mounted file system.
type volume struct {
	t       testing.TB
	dir     string
	image   string // of a loop device; "" for a tmpfs
	options string
}

func newTmpfs(t testing.TB, options string) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir(), options: options}
	require.NoError(t, unix.Mount("tmpfs", v.dir, "tmpfs", 0, options))
	require.NoError(t, os.Chmod(v.dir, 0o700))
	t.Cleanup(func() { unix.Unmount(v.dir, unix.MNT_DETACH) })
	return v
}

// newImage mounts a file system that mkfs makes in a file.
func newImage(t testing.TB, image string, size int64, options string, mkfs ...string) *volume {
	t.Helper()
	f, err := os.Create(image)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size))
	require.NoError(t, f.Close())
	v := &volume{t: t, dir: t.TempDir(), image: image, options: options}
	mkfs = append(mkfs, image)
	out, err := exec.Command(mkfs[0], mkfs[1:]...).CombinedOutput()
	env.Require(t, err == nil, fmt.Sprintf("needs %s: %v: %s", mkfs[0], err, out))
	err = v.mount()
	env.Require(t, err == nil, fmt.Sprintf("needs loop devices, and root: %v", err))
	t.Cleanup(func() { unix.Unmount(v.dir, unix.MNT_DETACH) })
	return v
}

func (v *volume) mount() error {
	out, err := exec.Command("mount", "-o", "loop,"+v.options, v.image, v.dir).CombinedOutput()
	if err == nil {
		err = os.Chmod(v.dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	return nil
}

// cut shuts the file system down as a power cut does: what is not flushed yet
// never will be, and the journal ends where it is.
func (v *volume) cut() {
	v.t.Helper()
	d, err := os.Open(v.dir)
	require.NoError(v.t, err)
	defer d.Close()
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same
	require.NoError(v.t, unix.IoctlSetPointerInt(int(d.Fd()), shutdown, noLogFlush))
}

// restart mounts the file system as after a power cut.
func (v *volume) restart() {
	v.t.Helper()
	require.NoError(v.t, unix.Unmount(v.dir, 0))
	require.NoError(v.t, v.mount())
}

// clear removes a folder, for good.
func (v *volume) clear(dir string) {
	v.t.Helper()
	require.NoError(v.t, os.RemoveAll(dir))
	d, err := os.Open(v.dir)
	require.NoError(v.t, err)
	defer d.Close()
	require.NoError(v.t, unix.Syncfs(int(d.Fd())))
}

// fill uses up all the space there is, and returns what gives it back.
func (v *volume) fill() (free func()) {
	v.t.Helper()
	path := filepath.Join(v.dir, "filler")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	require.NoError(v.t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	require.ErrorIs(v.t, err, unix.ENOSPC)
	require.NoError(v.t, f.Close())
	return func() { require.NoError(v.t, os.Remove(path)) }
}

// fillInodes uses up the files that there can be.
func (v *volume) fillInodes() (free func()) {
	v.t.Helper()
	var paths []string
	for {
		path := filepath.Join(v.dir, fmt.Sprint("filler", len(paths)))
		f, err := os.Create(path)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		require.NoError(v.t, err)
		f.Close()
		paths = append(paths, path)
	}
	return func() {
		for _, path := range paths {
			require.NoError(v.t, os.Remove(path))
		}
	}
}

// readOnly lets nothing be written.
func (v *volume) readOnly() (free func()) {
	v.t.Helper()
	require.NoError(v.t, unix.Mount("", v.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, v.options))
	return func() { require.NoError(v.t, unix.Mount("", v.dir, "", unix.MS_REMOUNT, v.options)) }
}
