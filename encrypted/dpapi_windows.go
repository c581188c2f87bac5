package encrypted

import (
	"bytes"
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func protect(data, entropy []byte) ([]byte, error) {
	var out windows.DataBlob
	if err := windows.CryptProtectData(blob(data), nil, blob(entropy), 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, dpapiError(err)
	}
	return taken(&out), nil
}

func unprotect(data, entropy []byte) ([]byte, error) {
	var out windows.DataBlob
	err := windows.CryptUnprotectData(blob(data), nil, blob(entropy), 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out)
	if err == nil {
		return taken(&out), nil
	}
	for _, refusal := range []error{
		windows.ERROR_INVALID_DATA,               // the usual one, also for another entropy
		windows.Errno(windows.NTE_BAD_KEY_STATE), // encrypted under a master key that this user cannot open
		windows.Errno(windows.NTE_BAD_DATA),
	} {
		if errors.Is(err, refusal) {
			return nil, fault(remedyDPAPI, "%w: DPAPI does not decrypt the key for this user on this machine: %w", persistence.ErrWrongKey, err)
		}
	}
	return nil, dpapiError(err)
}

func dpapiError(err error) error {
	return fault("Run the program in a session of the user's whose profile is loaded, or use another store for the key.",
		"%w: DPAPI: %w", persistence.ErrUnavailable, err)
}

func blob(b []byte) *windows.DataBlob {
	return &windows.DataBlob{Size: uint32(len(b)), Data: unsafe.SliceData(b)}
}

// taken returns a copy of what Windows has allocated, and frees it.
func taken(b *windows.DataBlob) []byte {
	if b.Data == nil {
		return nil
	}
	defer windows.LocalFree(windows.Handle(unsafe.Pointer(b.Data)))
	theirs := unsafe.Slice(b.Data, b.Size)
	defer clear(theirs)
	return bytes.Clone(theirs)
}
