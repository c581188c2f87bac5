package main

import (
	"bytes"
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"
)

// unprotect decrypts a blob of DPAPI.
func unprotect(blob []byte) ([]byte, error) {
	if len(blob) == 0 {
		return nil, errors.New("the blob is empty")
	}
	in := windows.DataBlob{Size: uint32(len(blob)), Data: &blob[0]}
	var out windows.DataBlob
	if err := windows.CryptUnprotectData(&in, nil, nil, 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, err
	}
	defer windows.LocalFree(windows.Handle(unsafe.Pointer(out.Data))) //nolint:errcheck // memory of this process
	return bytes.Clone(unsafe.Slice(out.Data, out.Size)), nil
}
