package merge_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/merge"
)

func TestOnly(t *testing.T) {
	own := `{"home_account_id":"A","secret":"a"}`
	for name, test := range map[string]struct {
		data, want string
		out        int
	}{
		"nothing":             {"", "", 0},
		"only its own":        {`{"AccessToken":{"k":` + own + `}}`, `{"AccessToken":{"k":` + own + `}}`, 0},
		"case does not count": {`{"Account":{"k":{"home_account_id":"a"}}}`, `{"Account":{"k":{"home_account_id":"a"}}}`, 0},
		"another's":           {`{"AccessToken":{"k":` + own + `,"l":{"home_account_id":"B","secret":"b"}},"Account":{}}`, `{"AccessToken":{"k":` + own + `},"Account":{}}`, 1},
		"of no account":       {`{"AppMetadata":{"k":{"client_id":"c"}},"Account":{"l":{"home_account_id":"B"}}}`, `{"AppMetadata":{"k":{"client_id":"c"}},"Account":{}}`, 1},
		"unknown sections":    {`{"New":{"k":{"home_account_id":"B"},"l":1},"Flat":[1]}`, `{"New":{"l":1},"Flat":[1]}`, 1},
		"an escaped key":      {`{"Account":{"l":{"home\u005faccount_id":"B"}}}`, `{"Account":{}}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			kept, out, err := merge.Only([]byte(test.data), "A")
			require.NoError(t, err)
			require.Equal(t, test.out, out)
			require.Equal(t, test.want, string(kept))
		})
	}
	_, _, err := merge.Only([]byte(`[]`), "A")
	require.ErrorIs(t, err, merge.ErrOurs)
}

// FuzzOnly: what is kept is a cache, has all that is the account's or
// nobody's and nothing of others, and keeping again leaves nothing out.
func FuzzOnly(f *testing.F) {
	for _, s := range []string{"", "{}", `{"Account":{"k":{"home_account_id":"A"},"l":{"home_account_id":"B"}}}`, `{"X":1,"Y":{"k":{"home_account_id":7}}}`, `{"Z":null}`} {
		f.Add(s)
	}
	type entries map[string]map[string]struct {
		Home any `json:"home_account_id"`
	}
	f.Fuzz(func(t *testing.T, data string) {
		kept, out, err := merge.Only([]byte(data), "A")
		if err != nil {
			return
		}
		again, none, err := merge.Only(kept, "A")
		require.NoError(t, err)
		require.Zero(t, none)
		require.Equal(t, string(kept), string(again))
		if out == 0 {
			require.Equal(t, data, string(kept))
			return
		}
		require.True(t, json.Valid(kept))
		var es entries
		if json.Unmarshal(kept, &es) != nil {
			return // it has more than two levels of objects, which is nobody's entry
		}
		for _, section := range es {
			for _, e := range section {
				if id, ok := e.Home.(string); ok && id != "" {
					require.True(t, strings.EqualFold(id, "A"), id)
				}
			}
		}
	})
}
