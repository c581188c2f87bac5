package keyring_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

// leaky is a keyring that prints its secret.
type leaky struct {
	keyring.Keyring
	Secret string
}

// Nothing that holds a secret, or a keyring that may, prints it.
func TestNothingPrintsASecret(t *testing.T) {
	const secret = "planted-secret"
	k := keyringtest.New()
	require.NoError(t, k.Set(t.Context(), "app", "alice", secret))
	ring := leaky{k, secret}
	keys := keyring.NewKeys(ring, "app")
	item, err := keyring.New(ring, "app", "alice", newLock(t))
	require.NoError(t, err)
	printed := func(v any) string {
		var b bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T%v"} {
			if strings.Contains(verb, "%T") {
				fmt.Fprintf(&b, verb+"\n", v, v)
			} else {
				fmt.Fprintf(&b, verb+"\n", v)
			}
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
			slog.New(h).Info("value", "v", v)
			slog.New(h).Info("value", "in", struct{ V any }{v})
		}
		fmt.Fprint(&b, v, struct{ V any }{v}, []any{v}, map[string]any{"v": v})
		return b.String()
	}
	hex := fmt.Sprintf("%x", secret)
	for want, v := range map[string]any{
		`keyring: keys of "app"`: keys, "keyring: keys of": *keys, `keyring: item "app/alice"`: item,
		"keyring: the keyring of the system": keyring.System(), "keyringtest: a keyring for tests": k,
	} {
		out := printed(v)
		require.Contains(t, out, want)
		for _, s := range []string{secret, hex, strings.ToUpper(hex)} {
			require.NotContains(t, out, s)
		}
	}
	require.Contains(t, printed(ring), secret, "the control")
}
