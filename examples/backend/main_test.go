package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// The whole test of a backend: every rule of package persistence.
func TestVault(t *testing.T) {
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		server := httptest.NewServer(new(service))
		t.Cleanup(server.Close)
		return func() (persistence.Persistence, error) { return Vault{server.URL, server.Client()}, nil }
	}, nil)
}

func TestVaultIsDown(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	_, err := Vault{server.URL, http.DefaultClient}.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	defer broken.Close()
	require.ErrorIs(t, Vault{broken.URL, broken.Client()}.Save(t.Context(), nil), persistence.ErrUnavailable)
}

func TestBackend(t *testing.T) {
	out := env.BuildProgram(t).Run(t, 0)
	require.Contains(t, out, "laptop: alice@contoso.example has signed in\n")
	require.Contains(t, out, "desktop: alice@contoso.example is signed in already\n")
}

// What is too large is refused, by the service or here, and what breaks off is not
// taken for the whole.
func TestVaultAnswersBadly(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   error
	}{
		"too large for the service": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusRequestEntityTooLarge) }, persistence.ErrTooLarge},
		"too large for a cache": {func(w http.ResponseWriter) {
			chunk := make([]byte, 1<<20)
			for range maxSize>>20 + 1 {
				w.Write(chunk) //nolint:errcheck // the client may have enough
			}
		}, persistence.ErrTooLarge},
		"broken off": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("{")) //nolint:errcheck // the same
		}, persistence.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { test.answer(w) }))
			defer server.Close()
			data, err := Vault{URL: server.URL, Client: server.Client()}.Load(t.Context())
			require.ErrorIs(t, err, test.want)
			require.Empty(t, data)
		})
	}
}
