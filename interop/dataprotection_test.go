package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/dpapi"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// dpapiOf is a stand-in for one user's DPAPI in one session. One that does not work
// encrypts, as Windows does there, but does not decrypt.
func dpapiOf(user string, works bool) (unprotect, protect func(data, entropy []byte) ([]byte, error)) {
	unprotect = func(data, entropy []byte) ([]byte, error) {
		plain, ok := bytes.CutPrefix(data, []byte(user+":"))
		if !ok || !works || entropy != nil {
			return nil, &dpapi.Refused{Err: errors.New("the data is invalid")}
		}
		return plain, nil
	}
	protect = func(data, _ []byte) ([]byte, error) { return append([]byte(user+":"), data...), nil }
	return unprotect, protect
}

// A refusal says whether the file or the session is the cause.
func TestDataProtectionRefused(t *testing.T) {
	unprotect, protect := dpapiOf("alice", true)
	plain, err := decrypt(t.Context(), []byte("alice:cache"), unprotect, protect)
	require.NoError(t, err)
	require.Equal(t, "cache", string(plain))
	_, err = decrypt(t.Context(), []byte("bob:planted"), unprotect, protect)
	require.ErrorIs(t, err, persistence.ErrWrongKey)
	require.NotContains(t, err.Error(), "planted")
	require.Contains(t, persistence.Remedy(err), "sign in again")

	unprotect, protect = dpapiOf("alice", false)
	_, err = decrypt(t.Context(), []byte("alice:cache"), unprotect, protect)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Contains(t, persistence.Remedy(err), "session")

	fails := func([]byte, []byte) ([]byte, error) { return nil, fmt.Errorf("%w: x", persistence.ErrUnavailable) }
	_, err = decrypt(t.Context(), []byte("alice:cache"), fails, protect)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.NotEmpty(t, persistence.Remedy(err))

	ended, end := context.WithCancel(t.Context())
	end()
	_, err = decrypt(ended, []byte("alice:cache"), unprotect, protect)
	require.ErrorIs(t, err, context.Canceled)
}

// azd's file on Windows is JSON around a blob or, from older versions, the blob.
func TestAzureDeveloperCLIContent(t *testing.T) {
	decryptFile := azdContent(func(ctx context.Context, blob []byte) ([]byte, error) {
		unprotect, protect := dpapiOf("alice", true)
		return decrypt(ctx, blob, unprotect, protect)
	})
	wrapped, err := json.Marshal(map[string]any{"type": "CryptProtectData", "data": []byte("alice:cache")})
	require.NoError(t, err)
	for _, file := range []string{string(wrapped), "alice:cache", "\n" + string(wrapped) + "\n"} {
		plain, err := decryptFile(t.Context(), []byte(file))
		require.NoError(t, err, file)
		require.Equal(t, "cache", string(plain))
	}
	for file, class := range map[string]error{
		string(wrapped[:20]):                         persistence.ErrCorrupt,
		`{"type":"CryptProtectData"}`:                persistence.ErrCorrupt,
		`{"type":"CryptProtectData","data":"*"}`:     persistence.ErrCorrupt,
		`{"type":"CryptProtectData","data":7}`:       persistence.ErrCorrupt,
		`{"type":"Vault","data":"YWxpY2U6Y2FjaGU="}`: persistence.ErrUnsupportedVersion,
		`{}`: persistence.ErrUnsupportedVersion,
		`{"type":"CryptProtectData","data":"Ym9iOmNhY2g="}`: persistence.ErrWrongKey,
		"bob:cache": persistence.ErrWrongKey,
	} {
		_, err := decryptFile(t.Context(), []byte(file))
		require.ErrorIs(t, err, class, file)
	}
}

func TestDataProtectionNeedsWindows(t *testing.T) {
	s, err := DataProtection("cache.bin", Options{Clients: []string{"client-a"}})
	if runtime.GOOS == "windows" {
		require.NoError(t, err)
		require.True(t, s.Describe().Encrypted)
	} else {
		require.ErrorIs(t, err, persistence.ErrUnavailable)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.NotEmpty(t, persistence.Remedy(err))
	}
}
