package persistence_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/reveal"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// What is stored in a Memory is printed by no verb of fmt, no handler of slog and
// no encoder of JSON, alone or as a part of something else.
func TestMemoryIsPrintedAsItsDescription(t *testing.T) {
	const secret = "planted secret"
	m := persistence.NewMemory()
	require.NoError(t, m.Save(t.Context(), []byte(secret)))
	rev, err := m.Revision(t.Context())
	require.NoError(t, err)
	type part struct {
		Exported   *persistence.Memory
		unexported *persistence.Memory
		copied     persistence.Memory
	}
	for _, v := range []any{m, *m, persistence.Persistence(m), part{m, m, *m}, &part{m, m, *m}} {
		out := reveal.All(v)
		for _, no := range []string{secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)), fmt.Sprint([]byte(secret)), fmt.Sprintf("%#v", []byte(secret)), rev} {
			require.NotContains(t, out, no)
		}
	}
	require.Equal(t, "memory", fmt.Sprintf("%+v", m))
	require.Equal(t, `"memory"`, fmt.Sprintf("%q", m))
	var none *persistence.Memory
	require.Equal(t, "<nil>", fmt.Sprint(none))
}

func TestFileLockIsPrintedAsItsDescription(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.lock")
	l := persistence.NewFileLock(path)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		require.Equal(t, "lock file "+path, fmt.Sprintf(verb, l))
	}
}
