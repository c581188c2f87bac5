package dpapi

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// crypt32 has the functions of DPAPI. Small installations of Windows lack some, and a
// call of one of those is a panic.
var (
	crypt32            = windows.NewLazySystemDLL("crypt32.dll")
	cryptProtectData   = crypt32.NewProc("CryptProtectData")
	cryptUnprotectData = crypt32.NewProc("CryptUnprotectData")
)

// Protect encrypts data. Entropy, which may be nil, must be given again to decrypt
// it.
func Protect(data, entropy []byte) ([]byte, error) {
	if err := cryptProtectData.Find(); err != nil {
		return nil, unavailable(cryptProtectData, err)
	}
	var out windows.DataBlob
	if err := windows.CryptProtectData(toBlob(data), nil, optional(entropy), 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, unavailable(cryptProtectData, err)
	}
	return takeBlob(&out), nil
}

// refusals are the errors with which Windows refuses to decrypt. They do not show
// whether the key is another user's or the session cannot open the user's own.
var refusals = []error{
	windows.ERROR_INVALID_DATA, // the usual one, also for another entropy
	windows.ERROR_FILE_NOT_FOUND,
	windows.Errno(windows.NTE_BAD_KEY_STATE), // the master key cannot be opened
	windows.Errno(windows.NTE_BAD_KEYSET),
	windows.Errno(windows.NTE_BAD_DATA),
}

// Unprotect decrypts what Protect has encrypted. It fails with a Refused where
// Windows does not decrypt, and with ErrUnavailable where DPAPI does not work.
func Unprotect(data, entropy []byte) ([]byte, error) {
	if err := cryptUnprotectData.Find(); err != nil {
		return nil, unavailable(cryptUnprotectData, err)
	}
	var out windows.DataBlob
	err := windows.CryptUnprotectData(toBlob(data), nil, optional(entropy), 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out)
	if err == nil {
		return takeBlob(&out), nil
	}
	for _, refusal := range refusals {
		if errors.Is(err, refusal) {
			return nil, rawcode.Copy(err, cryptUnprotectData.Name, &Refused{err})
		}
	}
	return nil, unavailable(cryptUnprotectData, err)
}

func unavailable(function *windows.LazyProc, err error) error {
	return rawcode.Copy(err, function.Name, fmt.Errorf("%w: DPAPI: %w", persistence.ErrUnavailable, err))
}

func toBlob(b []byte) *windows.DataBlob {
	return &windows.DataBlob{Size: uint32(len(b)), Data: unsafe.SliceData(b)}
}

// optional is toBlob for what may be left out: other programs leave it out.
func optional(b []byte) *windows.DataBlob {
	if b == nil {
		return nil
	}
	return toBlob(b)
}

// takeBlob returns a copy of what Windows has allocated, and frees it.
func takeBlob(b *windows.DataBlob) []byte {
	if b.Data == nil {
		return nil
	}
	defer windows.LocalFree(windows.Handle(unsafe.Pointer(b.Data)))
	theirs := unsafe.Slice(b.Data, b.Size)
	defer clear(theirs)
	return bytes.Clone(theirs)
}
