package interop

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/interop/internal/jwe"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// decryptWithKernelKey returns a function that decrypts a JWE with the key of that
// description in the kernel's keyring.
func decryptWithKernelKey(description string) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, file []byte) ([]byte, error) {
		m, err := jwe.Parse(file)
		if err != nil {
			return nil, remedy.With("Sign in again with the program that keeps it.", err)
		}
		keys, err := kernelKeys(description)
		if err != nil {
			return nil, err
		}
		if len(keys) == 0 {
			return nil, remedy.Errorf("Sign in again with the program that keeps it, as the user who runs this one.",
				"%w: the kernel's keyring has no key named %q, as after a restart", persistence.ErrKeyMissing, description)
		}
		for _, key := range keys {
			plain, err := m.Decrypt(key)
			if !errors.Is(err, persistence.ErrWrongKey) {
				return plain, err
			}
		}
		return nil, signInThere("%w: the key in the kernel's keyring is not that of the file", persistence.ErrWrongKey)
	}
}

// kernelKeys returns the keys of that description in the user's persistent keyring
// and in the user keyring, each once. azidentity/cache stores its key in the
// former, and where a kernel or a container has none, in the latter.
func kernelKeys(description string) (keys [][]byte, err error) {
	// The process must possess a keyring to read the keys in it. It does so for as
	// long as the keyring is linked to that of this thread, which nobody else has.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	seen := map[int]bool{}
	for _, link := range []func() (int, error){linkPersistent, linkUser} {
		ring, linkErr := link()
		if linkErr != nil {
			err = errors.Join(err, linkErr)
			continue
		}
		id, searchErr := unix.KeyctlSearch(ring, "user", description, 0)
		if searchErr == nil && !seen[id] {
			seen[id] = true
			var key []byte
			if key, searchErr = readKey(id); searchErr == nil {
				keys = append(keys, key)
			}
		}
		if !keyGone(searchErr) {
			err = errors.Join(err, searchErr)
		}
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, ring, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}
	if len(keys) == 0 && err != nil {
		return nil, remedy.Errorf("In a container, allow the system call keyctl.", "%w: the kernel's keyring may not be used here: %w", persistence.ErrUnavailable, err)
	}
	return keys, nil
}

func linkPersistent() (int, error) {
	ring, err := unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, -1, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("the persistent keyring: %w", err)
	}
	return ring, nil
}

func linkUser() (int, error) {
	ring, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
	if err == nil {
		_, err = unix.KeyctlInt(unix.KEYCTL_LINK, ring, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}
	if err != nil {
		return 0, fmt.Errorf("the user keyring: %w", err)
	}
	return ring, nil
}

// readKey returns the key, without the NUL that azidentity/cache stores after it.
func readKey(id int) ([]byte, error) {
	payload := make([]byte, jwe.KeySize+1)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, payload, 0)
	if err != nil {
		return nil, err
	}
	return payload[:min(n, jwe.KeySize)], nil
}

// keyGone reports whether there is no such key, or not any more; also for no error.
func keyGone(err error) bool {
	switch err {
	case nil, unix.ENOKEY, unix.EKEYREVOKED, unix.EKEYEXPIRED, unix.EKEYREJECTED:
		return true
	}
	return false
}
