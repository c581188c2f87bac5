package azcredential

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestFormat(t *testing.T) {
	c, err := persistence.New(persistence.NewMemory())
	require.NoError(t, err)
	credential, err := New(c, "app", nil)
	require.NoError(t, err)
	credential.account = persistence.Account{HomeAccountID: "planted-account"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		require.Equal(t, credential.String(), fmt.Sprintf(verb, credential), verb)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "c", credential)
	require.Contains(t, log.String(), "a credential of the application")
	require.NotContains(t, log.String()+credential.String(), "planted")
	require.NotEmpty(t, fmt.Sprintf("%+v", (*Credential)(nil)))
}
