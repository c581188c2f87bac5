package main

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

func testDPAPIFile(t *testing.T) {
	cache := []byte(`{"AccessToken":{},"RefreshToken":{"k":{"home_account_id":"u.t","environment":"login.microsoftonline.com","secret":"s"}}}`)
	var out windows.DataBlob
	require.NoError(t, windows.CryptProtectData(&windows.DataBlob{Size: uint32(len(cache)), Data: &cache[0]}, nil, nil, 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out))
	path := filepath.Join(t.TempDir(), "msal.cache")
	require.NoError(t, os.WriteFile(path, unsafe.Slice(out.Data, out.Size), 0o600))
	c := newCache(t)
	require.NoError(t, adopt(t.Context(), c, dpapiFile(path)))
	require.NoFileExists(t, path)
	data, err := c.Load(t.Context())
	require.NoError(t, err)
	require.Contains(t, string(data), "u.t")
}
