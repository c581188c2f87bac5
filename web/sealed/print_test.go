package sealed_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/web/sealed"
)

func TestKeyIsNotPrinted(t *testing.T) {
	secret := bytes.Repeat([]byte{0xAB}, 32)
	key := sealed.NewKey("2026-01", secret)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", key, "all", []sealed.Key{key})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", key, "all", []*sealed.Key{&key})
	data, err := json.Marshal(map[string]any{"key": key})
	require.NoError(t, err)
	texts := []string{log.String(), string(data)}
	for _, verb := range "vsqxXdtbcoU" {
		for _, flag := range []string{"", "+", "#"} {
			text := fmt.Sprintf("%"+flag+string(verb), key)
			require.Equal(t, `sealed.Key "2026-01"`, text)
			texts = append(texts, fmt.Sprintf("%"+flag+string(verb), []any{key, &key, struct{ Key sealed.Key }{key}, struct{ key sealed.Key }{key}, struct{ key *sealed.Key }{&key}}))
		}
	}
	plain := struct{ Secret []byte }{secret} // control: what is looked for is found
	require.Contains(t, fmt.Sprintf("%x %v", plain, plain), hex.EncodeToString(secret))
	encoded, err := json.Marshal(secret)
	require.NoError(t, err)
	for _, text := range texts {
		for _, bad := range []string{hex.EncodeToString(secret), "ABABAB", "171 171", "0xab", `\xab`, string(encoded[1 : len(encoded)-2])} {
			require.NotContains(t, text, bad)
		}
	}
}
