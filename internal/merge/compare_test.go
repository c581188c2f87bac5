package merge

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Compare is Equal and SignedOut in one look.
func TestCompare(t *testing.T) {
	const (
		ann     = `{"Account":{"a":{"home_account_id":"ann","environment":"e","x":"1"}}}`
		annLate = `{"Account":{"A":{"x":1,"environment":"e","home_account_id":"ann","y":null}},"IdToken":{}}`
		both    = `{"Account":{"a":{"home_account_id":"ann","environment":"e"},"b":{"home_account_id":"bob","environment":"e"}}}`
		broken  = `{"Account":{`
	)
	for _, c := range []struct {
		base, ours string
		err        error
	}{
		{ann, ann, nil}, {ann, annLate, nil}, {annLate, ann, nil}, {ann, both, nil}, {both, ann, nil}, {both, "", nil},
		{"", "", nil}, {"", "{}", nil}, {"", ann, nil}, {broken, broken, nil},
		{ann, broken, ErrOurs}, {"", broken, ErrOurs}, {broken, ann, nil}, {broken, "other " + broken, ErrBoth},
	} {
		same, out, err := Compare([]byte(c.base), []byte(c.ours))
		require.ErrorIs(t, err, c.err, "%s %s", c.base, c.ours)
		if c.err == nil {
			require.Equal(t, Equal([]byte(c.base), []byte(c.ours)), same, "%s %s", c.base, c.ours)
			require.ElementsMatch(t, SignedOut([]byte(c.base), []byte(c.ours)), out, "%s %s", c.base, c.ours)
		}
	}
	same, out, _ := Compare([]byte(both), []byte(ann))
	require.False(t, same)
	require.Equal(t, []Account{{"bob", "e"}}, out)
}
