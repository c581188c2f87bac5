package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gokeyring "github.com/zalando/go-keyring"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

func newCache(t *testing.T) *persistence.Cache {
	t.Helper()
	c, err := persistence.New(persistence.NewMemory())
	require.NoError(t, err)
	return c
}

func TestGoKeyringItem(t *testing.T) {
	gokeyring.MockInit()
	entries, err := newCache(t).Entries("contoso-cli")
	require.NoError(t, err)
	old := goKeyringItem("contoso", "client secret")
	stored, err := entries.Adopt(t.Context(), "client secret", old.read, old.remove)
	require.NoError(t, err)
	require.False(t, stored)
	require.NoError(t, gokeyring.Set("contoso", "client secret", "a secret"))
	stored, err = entries.Adopt(t.Context(), "client secret", old.read, old.remove)
	require.NoError(t, err)
	require.True(t, stored)
	value, err := entries.Get(t.Context(), "client secret")
	require.NoError(t, err)
	require.Equal(t, "a secret", string(value))
	_, err = gokeyring.Get("contoso", "client secret")
	require.ErrorIs(t, err, gokeyring.ErrNotFound)
}

func TestTokenFile(t *testing.T) {
	c := newCache(t)
	path := filepath.Join(t.TempDir(), "token.json")
	// As quickstarts write it: for everybody to read.
	require.NoError(t, os.WriteFile(path, []byte(`{"access_token":"at","token_type":"Bearer","refresh_token":"rt","expiry":"2100-01-01T00:00:00Z"}`), 0o644))
	require.NoError(t, adoptToken(t.Context(), c, path))
	require.NoFileExists(t, path)
	require.NoError(t, adoptToken(t.Context(), c, path))
	source, err := tokensource.New(t.Context(), c, "contoso", new(oauth2.Config))
	require.NoError(t, err)
	got, err := source.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "rt", got.RefreshToken)
	require.True(t, got.Expiry.Equal(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)))

	require.NoError(t, os.WriteFile(path, []byte(`{"access_token":"secret`), 0o644))
	err = adoptToken(t.Context(), c, path)
	require.ErrorContains(t, err, "has no token")
	require.NotContains(t, err.Error(), "secret")
	require.FileExists(t, path)
}

func TestDPAPIFile(t *testing.T) {
	old := dpapiFile(filepath.Join(t.TempDir(), "msal.cache"))
	_, err := old.read(context.Background())
	require.ErrorIs(t, err, fs.ErrNotExist)
	if runtime.GOOS != "windows" {
		t.Skip("DPAPI is a part of Windows")
	}
	testDPAPIFile(t)
}
