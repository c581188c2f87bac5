package keyring

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// kernel is the kernel keyring. Its items are keys of the type "user".
//
// They have the permissions that add_key(2) gives: a process that possesses a
// key may do everything with it, its user may see that it exists, others may do
// nothing. A process possesses a key if the key's keyring is linked, directly or
// not, to a keyring of the process; another user cannot link it.
type kernel struct{}

func newKernel() Limited { return kernel{} }

// place names the boot and the user namespace, for which the items are kept. It counts
// for a keyring that wraps this one and hides that it is the kernel's.
func (kernel) place() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	namespace, linkErr := os.Readlink("/proc/self/ns/user")
	if err != nil || linkErr != nil {
		return unknownKernel
	}
	return unknownKernel + "\x00" + strings.TrimSpace(string(boot)) + "\x00" + namespace
}

// unknownKernel is the place where the system does not say which it is.
const unknownKernel = "kernel"

func (k kernel) seesAll(_ context.Context, samePlace bool) (again bool, err error) {
	if samePlace && k.place() != unknownKernel {
		return false, nil
	}
	return false, newTrouble(NoSession, "the kernel's keyring here is not the one in which the key was stored, or that is not known",
		"Run the program where it stored the tokens. After a restart of the machine, sign out in the program, or run `tokenkeep clear` with the name of the cache, and sign in again.")
}

func (kernel) Get(ctx context.Context, service, user string) (secret string, err error) {
	err = withKernelRing(ctx, func(ring int) error {
		id, err := unix.KeyctlSearch(ring, "user", description(service, user), 0)
		if err != nil {
			return notFoundIfGone(err)
		}
		payload := make([]byte, maxKernelSecret+1)
		n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, payload, 0)
		if err != nil {
			return notFoundIfGone(err)
		}
		text, ours := strings.CutSuffix(string(payload[:min(n, len(payload))]), "\n")
		if !ours {
			return fmt.Errorf("%w: the key in the kernel keyring is not one of tokenkeep's", persistence.ErrCorrupt)
		}
		secret = text
		return nil
	})
	return secret, err
}

func (kernel) Set(ctx context.Context, service, user, secret string) error {
	return withKernelRing(ctx, func(ring int) error {
		// If the key exists, this changes it atomically. The newline is for the
		// empty secret: a key must have at least one byte.
		_, err := unix.AddKey("user", description(service, user), []byte(secret+"\n"), ring)
		return err
	})
}

func (kernel) Delete(ctx context.Context, service, user string) error {
	return withKernelRing(ctx, func(ring int) error {
		id, err := unix.KeyctlSearch(ring, "user", description(service, user), 0)
		if err != nil {
			return notFoundIfGone(err)
		}
		// Revoking erases the secret for all processes and frees its quota at
		// once. Unlinking alone leaves both to a garbage collector.
		if _, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0); err != nil {
			return notFoundIfGone(err)
		}
		unix.KeyctlInt(unix.KEYCTL_UNLINK, id, ring, 0, 0)
		return nil
	})
}

// List finds the items by their names, which the kernel shows without the secrets.
func (kernel) List(ctx context.Context, service string) (users []string, err error) {
	err = withKernelRing(ctx, func(ring int) error {
		ids, err := keyNumbers(ring)
		if err != nil {
			return err
		}
		prefix := description(service, "")
		prefix = prefix[:len(prefix)-len(`""`)]
		for _, id := range ids {
			text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
			if err != nil { // it is gone, or another's
				continue
			}
			fields := strings.SplitN(text, ";", 5) // type;uid;gid;permissions;name
			if len(fields) < 5 || fields[0] != "user" {
				continue
			}
			quoted, ours := strings.CutPrefix(fields[4], prefix)
			if user, err := strconv.Unquote(quoted); ours && err == nil && fields[4] == description(service, user) {
				users = append(users, user)
			}
		}
		return nil
	})
	slices.Sort(users)
	return slices.Compact(users), err
}

// keyNumbers returns the numbers of the keys that a keyring holds.
func keyNumbers(ring int) ([]int, error) {
	ids := make([]byte, 4*64)
	for {
		n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, ring, ids, 0)
		if err != nil {
			return nil, err
		}
		if n > len(ids) { // then nothing, or a part, was copied
			ids = make([]byte, 2*n)
			continue
		}
		var keys []int
		for id := range slices.Chunk(ids[:n], 4) {
			keys = append(keys, int(int32(binary.NativeEndian.Uint32(id))))
		}
		return keys, nil
	}
}

// maxKernelSecret is the kernel's limit for a key of this type, 32,767 bytes,
// less the newline.
const maxKernelSecret = 32766

func (kernel) ItemLimit(string, string) int { return maxKernelSecret }

// description returns the name of an item in the kernel keyring: different items
// have different names, and a person can type them. It must never change.
func description(service, user string) string {
	return "tokenkeep " + strconv.QuoteToASCII(service) + " " + strconv.QuoteToASCII(user)
}

// withKernelRing calls fn with the keyring that holds this user's items, and
// classifies its error. None of the calls waits for anything, so the context is
// only looked at before them.
func withKernelRing(ctx context.Context, fn func(ring int) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The process must possess the keyring. A link in the session keyring would
	// give it to every child process, and would be gone once that is revoked,
	// as after a logout. A process keyring is known only to threads started
	// later by the thread that made it. So the link is in the keyring of this
	// thread, until fn returns.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, -1, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	if errors.Is(err, unix.EOPNOTSUPP) { // a kernel without CONFIG_PERSISTENT_KEYRINGS
		ring, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
		if err == nil {
			_, err = unix.KeyctlInt(unix.KEYCTL_LINK, ring, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
		}
	}
	if err == nil {
		err = fn(ring)
		unix.KeyctlInt(unix.KEYCTL_UNLINK, ring, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}
	return classifyErrno(err)
}

// notFoundIfGone turns the error of a call on a key into ErrNotFound if there is
// no such key or it can no longer be read.
func notFoundIfGone(err error) error {
	switch err {
	case unix.ENOKEY, unix.EKEYREVOKED, unix.EKEYEXPIRED, unix.EKEYREJECTED:
		return persistence.ErrNotFound
	}
	return err
}

// classifyErrno gives an error of the kernel its class.
func classifyErrno(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.EDQUOT:
		return rawcode.Copy(errno, "keyctl", newTrouble(Full, "this user's quota for keys in the kernel is used up",
			"Remove keys that are not needed (keyctl show @u and keyctl show @us list them), or ask the administrator to raise maxkeys and maxbytes in /proc/sys/kernel/keys."))
	case unix.EPERM, unix.ENOSYS, unix.EACCES:
		return rawcode.Copy(errno, "keyctl", newTrouble(Denied, fmt.Sprintf("the kernel keyring may not be used here (%v)", err),
			"In a container, allow the system calls keyctl and add_key, or give the program a passphrase."))
	}
	return err
}
