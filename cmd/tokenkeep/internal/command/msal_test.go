package command

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	goauth2 "golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

// The command, Watch, tokensource and the merge agree on what is a cache, and on who
// and what is in it.
func TestReadersAgree(t *testing.T) {
	const (
		u      = `{"home_account_id":"u","environment":"e","username":"U"}`
		secret = `{"access_token":"a","token_type":"Bearer"}`
	)
	for name, c := range map[string]struct {
		data     string
		bad      bool
		accounts int
		token    bool // of key k
	}{
		"nothing":                  {data: ``},
		"empty":                    {data: `{}`},
		"a byte order mark":        {data: "\ufeff{}"},
		"white space":              {data: ` `},
		"null":                     {data: `null`},
		"zero bytes":               {data: "\x00\x00"},
		"a mark before a cache":    {data: "\ufeff" + `{"Account":{"a":` + u + `},"OAuth2Token":{"k":` + secret + `}}` + "\r\n", accounts: 1, token: true},
		"an array":                 {data: `[]`, bad: true},
		"broken":                   {data: `{"Account":{`, bad: true},
		"what follows the object":  {data: `{"Account":{"a":` + u + `},"OAuth2Token":{"k":` + secret + `}} trailing`, accounts: 1, token: true},
		"null sections":            {data: `{"Account":null,"OAuth2Token":null}`},
		"a repeated section":       {data: `{"Account":{"a":` + u + `},"Account":{},"OAuth2Token":{},"OAuth2Token":{"k":` + secret + `}}`, token: true},
		"a repeated key":           {data: `{"Account":{"a":1,"a":` + u + `},"OAuth2Token":{"k":1,"k":` + secret + `}}`, accounts: 1, token: true},
		"numbers are their digits": {data: `{"Account":{"a":{"home_account_id":7,"environment":"e"},"b":{"home_account_id":"7","environment":"E"}}}`, accounts: 1},
		"fields in another case":   {data: `{"Account":{"a":{"Home_Account_ID":"u","Environment":"e"}}}`},
		"odd entries":              {data: `{"Account":{"a":` + u + `,"b":1,"c":null,"d":[]}}`, accounts: 1},
		"nobody's":                 {data: `{"Account":{"a":{"environment":"e"}}}`},
		"keys in another case":     {data: `{"Account":{"A":{"home_account_id":"old","environment":"e"},"a":` + u + `},"OAuth2Token":{"K":1}}`, accounts: 1},
		"a section of a value":     {data: `{"Account":1,"Other":2}`},
	} {
		t.Run(name, func(t *testing.T) {
			memory := persistence.NewMemory()
			cache, err := persistence.New(memory)
			require.NoError(t, err)
			require.NoError(t, memory.Save(t.Context(), []byte(c.data)))

			sum, err := summarize([]byte(c.data), time.Now())
			require.Equal(t, c.bad, err != nil, "the command: %v", err)
			if err == nil {
				require.Len(t, sum.Accounts, c.accounts)
			}
			_, _, err = merge.Bytes(merge.BytesInput{BaseUnknown: true, Ours: []byte("{ }"), Theirs: tokencache.Trim([]byte(c.data))})
			require.Equal(t, c.bad, err != nil, "the merge: %v", err)
			if d, err := tokencache.Parse(tokencache.Trim([]byte(c.data))); err == nil {
				require.Len(t, merge.SignedOut(d, mustParse(t, "")), c.accounts)
			}
			if c.accounts > 0 {
				require.Len(t, watched(t, c.data), c.accounts, "Watch")
			}
			source, err := tokensource.New(t.Context(), cache, "k", &goauth2.Config{})
			require.NoError(t, err)
			token, err := source.Token()
			require.Equal(t, c.token, err == nil, "tokensource: %v", err)
			if c.token {
				require.Equal(t, "a", token.AccessToken)
			}
			if c.bad {
				require.NotErrorIs(t, err, tokensource.ErrSignInRequired, "tokensource takes it for a cache")
			} else if !c.token {
				require.ErrorIs(t, err, tokensource.ErrSignInRequired)
			}
		})
	}
}

// watched returns the accounts that Watch sees in the data.
func watched(t *testing.T, data string) (accounts []persistence.Account) {
	synctest.Test(t, func(t *testing.T) {
		memory := persistence.NewMemory()
		cache, err := persistence.New(memory)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		changes := cache.Watch(ctx, 0)
		require.NoError(t, memory.Save(ctx, []byte(data)))
		accounts = (<-changes).Accounts
		cancel()
		for range changes {
		}
	})
	return accounts
}

func mustParse(t *testing.T, data string) *tokencache.Doc {
	t.Helper()
	d, err := tokencache.Parse([]byte(data))
	require.NoError(t, err)
	return d
}
