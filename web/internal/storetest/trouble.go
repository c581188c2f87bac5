package storetest

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Planted is saved in every test of trouble, and is in no error.
const Planted = `{"secret":"` + planted + `"}`

const planted = "planted-8b1d4e7f20c95a63"

// RequireNoSecret looks for the planted secret, in several spellings, in all
// that an error shows.
func RequireNoSecret(t *testing.T, err error) {
	t.Helper()
	for e := err; e != nil; e = errors.Unwrap(e) {
		for _, format := range []string{"%v", "%+v", "%#v"} {
			text := strings.ToLower(fmt.Sprintf(format, e))
			for _, spelling := range []string{planted, hex.EncodeToString([]byte(planted)), base64.StdEncoding.EncodeToString([]byte(Planted)), strings.Trim(fmt.Sprint([]byte(planted)), "[]")} {
				require.NotContains(t, text, strings.ToLower(spelling))
			}
		}
	}
}

// RequireTrouble checks the error of a server in trouble: a class, words that
// say what is wrong, a remedy.
func RequireTrouble(t *testing.T, backend string, err error, says ...string) {
	t.Helper()
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	RequireNoSecret(t, err)
	var e *persistence.Error
	ok := errors.As(err, &e)
	require.True(t, ok)
	require.Equal(t, backend, e.Backend)
	require.NotEmpty(t, e.Remedy)
	for _, s := range says {
		require.ErrorContains(t, err, s)
	}
}

// RequireHolds checks what is stored.
func RequireHolds(t *testing.T, p persistence.Persistence, want string) {
	t.Helper()
	data, err := p.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, string(data))
}

// Save replaces what is stored with data.
func Save(t *testing.T, p persistence.Versioned, data string) (rev string) {
	t.Helper()
	rev, err := p.Revision(t.Context())
	require.NoError(t, err)
	rev, err = p.SaveIf(t.Context(), []byte(data), rev)
	require.NoError(t, err)
	return rev
}
