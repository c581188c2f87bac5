package lens

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExamine(t *testing.T) {
	h, err := Examine([]byte(`{"RefreshToken":{` + rt(base+"--", ours, "s", "") + `,` + rt(base, ours, "s", "") + `,` + rt("x", theirs, "s", "") + `},
		"IdToken":null,"AccessToken":{"k":{"client_id":"c","secret":{}}},"Other":null,` + accounts("u.t", "Ann@example.com", "v.t", "ann@example.com") + `}`))
	require.NoError(t, err)
	require.Equal(t, &Health{Clients: []string{ours, theirs}, Null: []string{"IdToken"}, Bad: []string{"AccessToken"}, Twice: 1, Usernames: 1}, h)

	h, err = Examine(nil)
	require.NoError(t, err)
	require.Equal(t, &Health{}, h)
	_, err = Examine([]byte(`{"Account`))
	require.ErrorIs(t, err, ErrNotCache)
}

// accounts is the section of accounts: a home and a username each.
func accounts(of ...string) string {
	var all []string
	for i := 0; i < len(of); i += 2 {
		all = append(all, `"`+of[i]+`-e-`+strconv.Itoa(i)+`":{"home_account_id":"`+of[i]+`","environment":"login.microsoftonline.com","realm":"`+strconv.Itoa(i)+`","username":"`+of[i+1]+`"}`)
	}
	return `"Account":{` + strings.Join(all, ",") + `}`
}

// As for Azure CLI: an account with a username that another one has is not added,
// in any way of writing it.
func TestOneAccountPerUsername(t *testing.T) {
	token := func(home string) string {
		return `"` + home + `":{"home_account_id":"` + home + `","environment":"login.microsoftonline.com","client_id":"client-a","credential_type":"RefreshToken","secret":"x"}`
	}
	tokens := func(homes ...string) string {
		var all []string
		for _, h := range homes {
			all = append(all, token(h))
		}
		return `{"RefreshToken":{` + strings.Join(all, ",") + `},`
	}
	file := tokens("u.t") + accounts("u.t", "ann@example.com") + `}`
	for name, c := range map[string]struct {
		view    string
		refused bool
	}{
		"another user":              {tokens("u.t", "v.t") + accounts("u.t", "ann@example.com", "v.t", "bob@example.com") + `}`, false},
		"the same user, renewed":    {tokens("u.t") + accounts("u.t", "ANN@example.com") + `}`, false},
		"the same user, two realms": {tokens("u.t") + accounts("u.t", "ann@example.com", "u.t", "ann@example.com") + `}`, false},
		"instead of the other":      {tokens("v.t") + accounts("v.t", "ann@example.com") + `}`, false},
		"the username of another":   {tokens("u.t", "v.t") + accounts("u.t", "ann@example.com", "v.t", "Ann@example.com") + `}`, true},
		"two new ones of one name":  {tokens("u.t", "v.t", "w.t") + accounts("u.t", "ann@example.com", "v.t", "bob@example.com", "w.t", "bob@example.com") + `}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := New([]string{ours}, false)
			out := put(t, l, []byte(file), []byte(c.view))
			h, err := Examine(out)
			require.NoError(t, err)
			require.Equal(t, c.refused, h.Usernames > 0, "control: without the rule")
			out, err = l.OneAccountPerUsername().Put([]byte(file), []byte(c.view), now)
			if c.refused {
				require.ErrorIs(t, err, ErrUsername)
				return
			}
			require.NoError(t, err)
			require.Equal(t, view(t, l, []byte(c.view)), view(t, l, out))
		})
	}
	// What was there before is no reason to refuse a refresh.
	both := tokens("u.t", "v.t") + accounts("u.t", "ann@example.com", "v.t", "ann@example.com") + `}`
	_, err := New([]string{ours}, false).OneAccountPerUsername().Put([]byte(both), []byte(strings.Replace(both, `"x"`, `"y"`, 1)), now)
	require.NoError(t, err)
	// One of another client, which stays.
	theirsOnly := strings.ReplaceAll(file, "client-a", theirs)
	_, err = New([]string{ours}, false).OneAccountPerUsername().Put([]byte(theirsOnly), []byte(tokens("v.t")+accounts("v.t", "ann@example.com")+`}`), now)
	require.ErrorIs(t, err, ErrUsername)
}
