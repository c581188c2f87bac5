package keyring

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// kernel is the kernel keyring. Its items are keys of the type "user".
//
// They are made with the permissions that add_key(2) gives: whoever possesses a
// key may do all with it, its user may see that it is there, others may nothing.
// To possess them is to have their keyring linked, however indirectly, to a
// keyring of one's own, and another user cannot link it.
type kernel struct{}

func newKernel() Limited { return kernel{} }

func (kernel) Get(ctx context.Context, service, user string) (secret string, err error) {
	err = withKernelRing(ctx, func(ring int) error {
		id, err := unix.KeyctlSearch(ring, "user", description(service, user), 0)
		if err != nil {
			return absent(err)
		}
		payload := make([]byte, maxKernelSecret+1)
		n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, payload, 0)
		if err != nil {
			return absent(err)
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
		// Changes the key if there is one, at one stroke. The newline is for
		// the empty secret: a key must have a byte.
		_, err := unix.AddKey("user", description(service, user), []byte(secret+"\n"), ring)
		return err
	})
}

func (kernel) Delete(ctx context.Context, service, user string) error {
	return withKernelRing(ctx, func(ring int) error {
		id, err := unix.KeyctlSearch(ring, "user", description(service, user), 0)
		if err != nil {
			return absent(err)
		}
		// Revoking erases the secret at once, for everybody who has the key,
		// and gives its quota back. Unlinking alone leaves both to a garbage
		// collector.
		if _, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0); err != nil {
			return absent(err)
		}
		unix.KeyctlInt(unix.KEYCTL_UNLINK, id, ring, 0, 0)
		return nil
	})
}

// maxKernelSecret is the kernel's limit for a key of this type, 32,767 bytes,
// without the newline.
const maxKernelSecret = 32766

func (kernel) ItemLimit(string, string) int { return maxKernelSecret }

// description names an item in the kernel keyring, the same way for ever, so
// that no two items have one name and a person can type it.
func description(service, user string) string {
	return "tokenkeep " + strconv.QuoteToASCII(service) + " " + strconv.QuoteToASCII(user)
}

// withKernelRing calls fn with the keyring of this user that items are in, and
// gives its error a class. None of the calls waits for anything, so that there
// is no use for the context but before them.
func withKernelRing(ctx context.Context, fn func(ring int) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The keyring must be possessed. Linked to the session's keyring it would
	// be in the hands of every child, and be gone where that is revoked, as
	// after a logout. A process keyring is known only to those threads that
	// the thread which made it starts later. So it is linked to the keyring
	// of this one thread, for as long as fn takes.
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
	return kernelClass(err)
}

// absent makes the error of a call on a key ErrNotFound where there is no key,
// or none that can be read any more.
func absent(err error) error {
	switch err {
	case unix.ENOKEY, unix.EKEYREVOKED, unix.EKEYEXPIRED, unix.EKEYREJECTED:
		return persistence.ErrNotFound
	}
	return err
}

func kernelClass(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.EDQUOT:
		return &advice{fmt.Errorf("%w: this user's quota for keys in the kernel is used up", persistence.ErrTooLarge),
			keepInFile + " Or let the administrator raise maxkeys and maxbytes in /proc/sys/kernel/keys."}
	case unix.EPERM, unix.ENOSYS, unix.EACCES:
		return unavailable(fmt.Sprintf("the kernel keyring may not be used here (%v)", err),
			"In a container, allow the system calls keyctl and add_key, or give the program a passphrase.")
	}
	return err
}
