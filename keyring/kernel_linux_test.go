package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// needKernel returns the kernel keyring and a service that is nobody else's,
// whose items are removed at the end.
func needKernel(t *testing.T) (k Limited, service string) {
	t.Helper()
	service = "tokenkeep-test-" + rand.Text()
	k = Kernel()
	_, err := k.Get(t.Context(), service, "alice")
	env.Require(t, errors.Is(err, persistence.ErrNotFound), fmt.Sprintf("the kernel keyring does not work here: %v", err))
	ForgetKernel(t, service)
	return k, service
}

// ForgetKernel removes, at the end of the test, every item whose name contains
// the service. It is also for the external test package.
func ForgetKernel(t *testing.T, service string) {
	t.Cleanup(func() {
		err := withKernelRing(context.Background(), func(ring int) error {
			for _, id := range keysIn(t, ring) {
				text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
				if err == nil && strings.Contains(text, service) {
					unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
					unix.KeyctlInt(unix.KEYCTL_UNLINK, id, ring, 0, 0)
				}
			}
			return nil
		})
		require.NoError(t, err)
	})
}

// keysIn returns the keys that a keyring holds.
func keysIn(t testing.TB, ring int) []int {
	t.Helper()
	keys, err := keyNumbers(ring)
	require.NoError(t, err)
	return keys
}

// withKey calls fn with the kernel's number of an item.
func withKey(t *testing.T, service, user string, fn func(id int) error) {
	t.Helper()
	require.NoError(t, withKernelRing(t.Context(), func(ring int) error {
		id, err := unix.KeyctlSearch(ring, "user", description(service, user), 0)
		if err != nil {
			return err
		}
		return fn(id)
	}))
}

func TestKernel(t *testing.T) {
	k, service := needKernel(t)
	ctx := t.Context()
	require.ErrorIs(t, k.Delete(ctx, service, "alice"), persistence.ErrNotFound)
	for _, secret := range []string{"first", "", "two\nlines and ünïcode\n", "\x00\xff not UTF-8", strings.Repeat("x", k.ItemLimit(service, "alice"))} {
		err := k.Set(ctx, service, "alice", secret)
		if len(secret) > 10_000 && errors.Is(err, persistence.ErrTooLarge) {
			continue // the quota of a user who is not root
		}
		require.NoError(t, err)
		got, err := k.Get(ctx, service, "alice")
		require.NoError(t, err)
		require.Equal(t, secret, got)
	}
	err := k.Set(ctx, service, "alice", strings.Repeat("x", k.ItemLimit(service, "alice")+1))
	require.ErrorIs(t, err, persistence.ErrTooLarge)

	// Names that could be taken for each other are not.
	names := [][2]string{{"/a", "b"}, {"/", "a/b"}, {`" "`, "x"}, {`"`, `" x`}, {"é", "é"}, {`é`, "e\u0301"}, {strings.Repeat("é", 200), strings.Repeat("\"", 500)}}
	for _, n := range names {
		require.NoError(t, k.Set(ctx, service+n[0], n[1], n[0]+n[1]))
	}
	for _, n := range names {
		got, err := k.Get(ctx, service+n[0], n[1])
		require.NoError(t, err)
		require.Equal(t, n[0]+n[1], got)
		require.NoError(t, k.Delete(ctx, service+n[0], n[1]))
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = k.Get(cancelled, service, "alice")
	require.ErrorIs(t, err, context.Canceled)
}

func TestKernelConformance(t *testing.T) {
	quota := "/proc/sys/kernel/keys/root_maxbytes"
	if os.Getuid() != 0 {
		quota = "/proc/sys/kernel/keys/maxbytes"
	}
	k, service := needKernel(t)
	text, err := os.ReadFile(quota)
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	env.Require(t, n >= 8<<20, "needs 8 MB for keys: run it as root, or raise "+quota)
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		user, path := rand.Text(), filepath.Join(t.TempDir(), "cache.lock")
		t.Cleanup(func() {
			p, err := New(k, service, user, persistence.NewFileLock(path))
			require.NoError(t, err)
			require.NoError(t, p.Delete(context.Background()))
		})
		return func() (persistence.Persistence, error) {
			return New(k, service, user, persistence.NewFileLock(path))
		}
	}, nil)
}

// A key that cannot be read any more is no key, and a new one takes its place.
func TestKernelRevokedAndExpired(t *testing.T) {
	k, service := needKernel(t)
	ctx := t.Context()
	for name, spoil := range map[string]func(id int) error{
		"revoked": func(id int) error {
			_, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
			return err
		},
		"expired": func(id int) error {
			_, err := unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, id, 1, 0, 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			keys := NewKeys(k, service)
			ref, _, err := keys.NewKey(ctx, name)
			require.NoError(t, err)
			withKey(t, service, "tokenkeep key "+name, spoil)
			require.Eventually(t, func() bool {
				_, err := keys.Key(ctx, ref)
				return errors.Is(err, persistence.ErrKeyMissing)
			}, time.Minute, time.Millisecond)
			require.ErrorIs(t, k.Delete(ctx, service, "tokenkeep key "+name), persistence.ErrNotFound)
			_, key, err := keys.NewKey(ctx, name)
			require.NoError(t, err)
			got, err := keys.Key(ctx, ref)
			require.NoError(t, err)
			require.Equal(t, key, got)
			require.NoError(t, keys.DeleteKey(ctx, ref))
		})
	}
	t.Run("another program's", func(t *testing.T) {
		require.NoError(t, withKernelRing(ctx, func(ring int) error {
			_, err := unix.AddKey("user", description(service, "alice"), []byte("planted-secret"), ring)
			return err
		}))
		_, err := k.Get(ctx, service, "alice")
		require.ErrorIs(t, err, persistence.ErrCorrupt)
		require.NotContains(t, err.Error(), "planted-secret")
	})
}

// On any thread a goroutine finds the items, and leaves nothing in the keyrings
// of the thread and the session.
func TestKernelThreads(t *testing.T) {
	_, service := needKernel(t)
	require.Equal(t, "threads <nil>\n", runKernel(t, service, "threads"))
	t.Run("linked to the user's keyring", func(t *testing.T) {
		// As another program may have done, with keyctl get_persistent @u. A user
		// of our own has it done here.
		env.Require(t, os.Getuid() == 0, "needs to be root, to become another user")
		require.Equal(t, "link <nil> <nil>\nthreads <nil>\n", runKernel(t, service, "uid="+strconv.Itoa(freshUser()), "link", "threads"))
	})
	t.Run("control: linked to the session's keyring", func(t *testing.T) {
		require.Contains(t, runKernel(t, service, "threads-leak"), "are left in the session's keyring")
	})
}

// freshUser returns a user who most likely has no keys on this machine.
func freshUser() int { return 20_000 + mathrand.IntN(40_000) }

// useThreads uses the keyring on several threads, each in a session keyring of
// its own, which holds nothing of this machine, and with leak leaves something
// in it.
func useThreads(k Limited, service string, leak bool) error {
	ctx := context.Background()
	if err := k.Set(ctx, service, "all", "shared"); err != nil {
		return err
	}
	threads := make(chan error, 8)
	for i := range cap(threads) {
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			threads <- func() error {
				if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
					return err
				}
				for n := range 20 {
					user, secret := strconv.Itoa(i), fmt.Sprint(i, n)
					if err := k.Set(ctx, service, user, secret); err != nil {
						return err
					}
					if got, err := k.Get(ctx, service, user); err != nil || got != secret {
						return fmt.Errorf("%q, %w", got, err)
					}
					if got, err := k.Get(ctx, service, "all"); err != nil || got != "shared" {
						return fmt.Errorf("%q, %w", got, err)
					}
				}
				if leak {
					if _, err := unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, -1, unix.KEY_SPEC_SESSION_KEYRING, 0, 0); err != nil {
						return err
					}
				}
				for name, ring := range map[string]int{"thread": unix.KEY_SPEC_THREAD_KEYRING, "session": unix.KEY_SPEC_SESSION_KEYRING} {
					if left, err := keyNumbers(ring); err != nil || len(left) != 0 {
						return fmt.Errorf("%d keys are left in the %s's keyring, %v", len(left), name, err)
					}
				}
				return nil
			}()
		}()
	}
	var errs []error
	for range cap(threads) {
		errs = append(errs, <-threads)
	}
	return errors.Join(errs...)
}

func init() { programs["kernel"] = kernelProgram }

// kernelProgram does as its arguments say, one after the other, with the items
// of a service: other processes, users and kernels.
func kernelProgram(args []string) error {
	ctx := context.Background()
	k, service := Kernel(), args[0]
	// In a session keyring of its own: the one that it was started with may hold
	// keys that other programs or another user put there.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		return err
	}
	for _, arg := range args[1:] {
		op, value, _ := strings.Cut(arg, "=")
		switch op {
		case "uid":
			uid, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			if err := syscall.Setresuid(uid, uid, uid); err != nil {
				return err
			}
		case "link": // the persistent keyring to the user's, and that to the session's
			_, err := unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, -1, unix.KEY_SPEC_USER_KEYRING, 0, 0)
			if err == nil {
				_, err = unix.KeyctlInt(unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_SESSION_KEYRING, 0, 0)
			}
			if err == nil {
				err = k.Set(ctx, service, "all", "linked")
			}
			// The session has the items: what is linked there says nothing about us.
			_, searchErr := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", description(service, "all"), 0)
			fmt.Println("link", err, searchErr)
		case "threads":
			fmt.Println("threads", useThreads(k, service, false))
		case "threads-leak":
			fmt.Println("threads", useThreads(k, service, true))
		case "refuse": // the calls add_key and keyctl
			errno, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			if err := refuse(syscall.Errno(errno), false); err != nil {
				return err
			}
		case "old": // a kernel without persistent keyrings
			if err := refuse(syscall.EOPNOTSUPP, true); err != nil {
				return err
			}
		case "get", "key":
			var secret string
			var err error
			if op == "key" {
				_, _, err = NewKeys(k, service).NewKey(ctx, value)
			} else {
				secret, err = k.Get(ctx, service, value)
			}
			fmt.Printf("%s %q %s\n", op, secret, kindOf(err))
		case "set":
			user, secret, _ := strings.Cut(value, ":")
			fmt.Println("set", kindOf(k.Set(ctx, service, user, secret)))
		case "delete":
			fmt.Println("delete", kindOf(k.Delete(ctx, service, value)))
		case "fill":
			last := error(nil)
			n := 0
			for ; last == nil && n < 10_000; n++ {
				last = k.Set(ctx, service, strconv.Itoa(n), strings.Repeat("planted-secret ", 1000))
			}
			fmt.Println("fill", n > 1, kindOf(last), strings.Contains(fmt.Sprint(last), "planted-secret"), strings.Contains(fmt.Sprint(last), "quota"))
			for n--; n >= 0; n-- {
				k.Delete(ctx, service, strconv.Itoa(n))
			}
		case "read": // a key by its number
			id, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			_, err = unix.KeyctlBuffer(unix.KEYCTL_READ, id, make([]byte, 100), 0)
			fmt.Println("read", err)
		case "ring": // the persistent keyring of another user
			uid, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			_, err = unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, uid, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
			fmt.Println("ring", err)
		default:
			return errors.New("unknown: " + op)
		}
	}
	return nil
}

func kindOf(err error) string {
	for name, class := range map[string]error{
		"not found": persistence.ErrNotFound, "unavailable": persistence.ErrUnavailable, "too large": persistence.ErrTooLarge,
	} {
		if errors.Is(err, class) {
			return name
		}
	}
	return fmt.Sprint(err)
}

// refuse makes the kernel refuse the calls of its keyring with errno, as
// containers do; or only the one for the persistent keyring.
func refuse(errno syscall.Errno, onlyPersistent bool) error {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	const number, argument = 0, 16 // offsets in struct seccomp_data; the argument's low half, on little-endian machines
	deny := uint32(unix.SECCOMP_RET_ERRNO) | uint32(errno)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_KEYCTL, Jt: 1},
		{Code: equal, K: unix.SYS_ADD_KEY, Jf: 1},
		{Code: ret, K: deny},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	if onlyPersistent {
		filter = []unix.SockFilter{
			{Code: load, K: number},
			{Code: equal, K: unix.SYS_KEYCTL, Jf: 3},
			{Code: load, K: argument},
			{Code: equal, K: unix.KEYCTL_GET_PERSISTENT, Jf: 1},
			{Code: ret, K: deny},
			{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return e
	}
	return nil
}

func runKernel(t *testing.T, args ...string) string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "TOKENKEEP_TEST_PROGRAM=kernel", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

// Another process of the user has the items, also one of another session.
func TestKernelProcesses(t *testing.T) {
	k, service := needKernel(t)
	require.NoError(t, k.Set(t.Context(), service, "alice", "from here"))
	require.Equal(t, "get \"from here\" <nil>\nset <nil>\n", runKernel(t, service, "get=alice", "set=bob:from there"))
	got, err := k.Get(t.Context(), service, "bob")
	require.NoError(t, err)
	require.Equal(t, "from there", got)
}

func TestKernelRefused(t *testing.T) {
	_, service := needKernel(t)
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS, syscall.EACCES} {
		require.Equal(t, "get \"\" unavailable\nset unavailable\ndelete unavailable\nkey \"\" unavailable\n",
			runKernel(t, service, "refuse="+strconv.Itoa(int(errno)), "get=alice", "set=alice:x", "delete=alice", "key=id"), errno)
	}
}

func TestKernelWithoutPersistentKeyrings(t *testing.T) {
	k, service := needKernel(t)
	require.Equal(t, "set <nil>\nset <nil>\nget \"new\" <nil>\ndelete <nil>\nget \"\" not found\ndelete not found\nset <nil>\n",
		runKernel(t, service, "old", "set=alice:x", "set=alice:new", "get=alice", "delete=alice", "get=alice", "delete=alice", "set=bob:x"))
	_, err := k.Get(t.Context(), service, "bob")
	require.ErrorIs(t, err, persistence.ErrNotFound, "the control: it was in another keyring")
	require.Equal(t, "get \"x\" <nil>\ndelete <nil>\n", runKernel(t, service, "old", "get=bob", "delete=bob"))
}

func TestKernelOtherUsers(t *testing.T) {
	k, service := needKernel(t)
	env.Require(t, os.Getuid() == 0, "needs to be root, to become another user")
	require.NoError(t, k.Set(t.Context(), service, "alice", "root's"))
	another := freshUser()
	withKey(t, service, "alice", func(id int) error {
		text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
		require.NoError(t, err)
		permissions := strings.Split(text, ";")[3] // type;uid;gid;permissions;description
		require.Equal(t, "3f010000", permissions, "possessor, user, group, others")
		require.Equal(t, "get \"\" not found\nread permission denied\nring operation not permitted\nfill true too large false true\n",
			runKernel(t, service, "uid="+strconv.Itoa(another), "get=alice", "read="+strconv.Itoa(id), "ring=0", "fill"))
		return nil
	})
}

func TestKernelLists(t *testing.T) {
	k, service := needKernel(t)
	ctx := t.Context()
	lister, ok := k.(Lister)
	require.True(t, ok)
	users, err := lister.List(ctx, service)
	require.NoError(t, err)
	require.Empty(t, users)
	for _, user := range []string{"b", `a "é" \`, "gone"} {
		require.NoError(t, k.Set(ctx, service, user, "planted-secret"))
	}
	require.NoError(t, k.Set(ctx, service+" more", "c", "x"))
	withKey(t, service, "gone", func(id int) error {
		_, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
		return err
	})
	users, err = lister.List(ctx, service)
	require.NoError(t, err)
	require.Equal(t, []string{`a "é" \`, "b"}, users)
	_, err = lister.List(ctx, "")
	require.Error(t, err)
	for i := range 70 { // keyNumbers has to ask twice
		require.NoError(t, k.Set(ctx, service+" many", strconv.Itoa(i), "x"))
	}
	users, err = lister.List(ctx, service+" many")
	require.NoError(t, err)
	require.Len(t, users, 70)
}
