package persistence_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// memoryOf is the memory of a real MSAL Go client, which nothing else uses.
type memoryOf struct{ cache.Serializer }

func (m *memoryOf) Replace(_ context.Context, u cache.Unmarshaler, _ cache.ReplaceHints) error {
	m.Serializer = u.(cache.Serializer)
	return nil
}

func (m *memoryOf) Export(context.Context, cache.Marshaler, cache.ExportHints) error { return nil }

func msalMemory(t *testing.T) cache.Serializer {
	t.Helper()
	m := new(memoryOf)
	c, err := public.New("client", public.WithCache(m))
	require.NoError(t, err)
	_, err = c.Accounts(t.Context())
	require.NoError(t, err)
	return m.Serializer
}

// with returns a cache with one entry more.
func with(t *testing.T, data []byte, section, key, value string) []byte {
	t.Helper()
	d, err := tokencache.Parse(data)
	require.NoError(t, err)
	data, err = d.Set(section, key, []byte(value))
	require.NoError(t, err)
	return data
}

// refusable are entries that MSAL Go does not unmarshal.
var refusable = map[string]struct{ section, key, value string }{
	"null":                                {"AccessToken", "bad", `null`},
	"a number for a string":               {"RefreshToken", "bad", `{"home_account_id":"ann","environment":"login","secret":5}`},
	"a fraction for a time":               {"AccessToken", "bad", `{"home_account_id":"ann","environment":"login","secret":"pl4nted-s3cret","cached_at":"1.5"}`},
	"another Account entry of an account": {"Account", "bad", `{"home_account_id":"ann","environment":"login","realm":"guest","name":7}`},
	"the only Account entry of another":   {"Account", "bad", `{"home_account_id":"zoe","environment":"login","username":null,"name":[]}`},
	"a key that moves the cursor":         {"IdToken", "bad\x1b[2J", `"x"`},
}

// An entry that MSAL cannot take blocks nothing: it is left out of what MSAL is
// given and of what is stored next, one warning names it, and the rest lives.
func TestEntriesThatMSALRefuses(t *testing.T) {
	for name, bad := range refusable {
		for _, merged := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/merged=%v", name, merged), func(t *testing.T) {
				good := with(t, oneAccount("ann"), "OAuth2Token", "k", `{"expires_on":1.5,"x":null}`)
				data := with(t, good, bad.section, bad.key, bad.value)
				u := msalMemory(t)
				require.Error(t, u.Unmarshal(data), "control: MSAL refuses it")

				p := persistence.NewMemory()
				require.NoError(t, p.Save(t.Context(), data))
				var log bytes.Buffer
				c := open(t, p, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
				require.NoError(t, c.Replace(t.Context(), u, cache.ReplaceHints{}))
				held, err := u.Marshal()
				require.NoError(t, err)
				require.Equal(t, []string{"ann"}, usersIn(t, held))

				if merged { // another process saves, and knows nothing of all this
					require.NoError(t, p.Save(t.Context(), with(t, data, "AccessToken", "theirs", `{"home_account_id":"ann","secret":"t"}`)))
				}
				require.NoError(t, u.Unmarshal(with(t, held, "AccessToken", "ours", `{"home_account_id":"ann","secret":"o"}`)))
				require.NoError(t, c.Export(t.Context(), u, cache.ExportHints{}))
				now, err := p.Load(t.Context())
				require.NoError(t, err)
				require.NoError(t, msalMemory(t).Unmarshal(now), "%s", now)
				require.Equal(t, []string{"ann"}, usersIn(t, now))
				require.Contains(t, string(now), `"ours"`)
				require.Equal(t, merged, strings.Contains(string(now), `"theirs"`))
				require.Contains(t, string(now), `"OAuth2Token":{"k":{"expires_on":1.5,"x":null}}`)

				require.Equal(t, 1, strings.Count(log.String(), "\n"), "%s", &log)
				require.Contains(t, log.String(), bad.section)
				require.Contains(t, log.String(), "bad")
				require.NotContains(t, log.String(), "pl4nted-s3cret")
				require.NotContains(t, log.String(), "\x1b")

				// A new entry of another process is met as well.
				require.NoError(t, p.Save(t.Context(), with(t, now, bad.section, bad.key, bad.value)))
				require.NoError(t, c.Replace(t.Context(), u, cache.ReplaceHints{}))
				held, err = u.Marshal()
				require.NoError(t, err)
				require.Equal(t, []string{"ann"}, usersIn(t, held))
			})
		}
	}
}

// What holds nothing, or only begins with a byte order mark, is no damage.
func TestStoredBlanks(t *testing.T) {
	for _, blank := range []string{"", " ", "\n", "null", "\x00\x00\x00", "\ufeff", "\ufeff{}"} {
		u := msalMemory(t)
		p := persistence.NewMemory()
		require.NoError(t, p.Save(t.Context(), []byte(blank)))
		c := open(t, p, persistence.WithStrict())
		require.NoError(t, c.Replace(t.Context(), u, cache.ReplaceHints{}), "%q", blank)
		require.NoError(t, u.Unmarshal(oneAccount("ann")))
		require.NoError(t, c.Export(t.Context(), u, cache.ExportHints{}), "%q", blank)
		now, err := p.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"ann"}, usersIn(t, now))
	}
	u := msalMemory(t)
	p := persistence.NewMemory()
	require.NoError(t, p.Save(t.Context(), append([]byte("\ufeff"), oneAccount("ann")...)))
	require.NoError(t, open(t, p, persistence.WithStrict()).Replace(t.Context(), u, cache.ReplaceHints{}))
	held, err := u.Marshal()
	require.NoError(t, err)
	require.Equal(t, []string{"ann"}, usersIn(t, held))
}

// Of an entry that says nothing MSAL Go makes what is no JSON, so that no Export
// can be stored. It is met once, and not for good.
func TestEntriesThatMSALCannotSerialize(t *testing.T) {
	for _, bad := range []string{`{}`, `{"secret":""}`, `{"\u0007":1}`} {
		u := msalMemory(t)
		p := persistence.NewMemory()
		require.NoError(t, p.Save(t.Context(), with(t, oneAccount("ann"), "RefreshToken", "bad", bad)))
		c := open(t, p)
		require.NoError(t, c.Replace(t.Context(), u, cache.ReplaceHints{}))
		broken, err := u.Marshal()
		require.NoError(t, err)
		require.False(t, json.Valid(broken), "control: %s", broken)
		require.Error(t, c.Export(t.Context(), u, cache.ExportHints{}))

		require.NoError(t, c.Replace(t.Context(), u, cache.ReplaceHints{}))
		held, err := u.Marshal()
		require.NoError(t, err)
		require.NoError(t, u.Unmarshal(with(t, held, "AccessToken", "ours", `{"home_account_id":"ann","secret":"o"}`)))
		require.NoError(t, c.Export(t.Context(), u, cache.ExportHints{}), bad)
		now, err := p.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"ann"}, usersIn(t, now))
		require.Contains(t, string(now), `"ours"`)
	}
}

// choosy refuses what a client would take.
type choosy struct {
	client
	refuses bool
}

func (c *choosy) Unmarshal(b []byte) error {
	if c.refuses {
		return errors.New("planted: " + planted)
	}
	return c.client.Unmarshal(b)
}

// That an in-memory cache refuses what is stored is logged once, whatever was
// logged before, and with no word of what is stored.
func TestARefusalIsLogged(t *testing.T) {
	p := newWatched()
	var log bytes.Buffer
	c := open(t, p, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	u := new(choosy)
	replace(t, c, u, "")
	p.failWith(errors.New("the disk is on fire"))
	replace(t, c, u, "")
	require.Equal(t, 1, strings.Count(log.String(), "\n"), "%s", &log)
	p.failWith(nil)
	require.NoError(t, p.Save(t.Context(), oneAccount("ann")))
	u.refuses = true
	replace(t, c, u, "")
	replace(t, c, u, "")
	require.Equal(t, 2, strings.Count(log.String(), "\n"), "%s", &log)
	require.Contains(t, log.String(), "does not accept what is stored")
	require.NotContains(t, log.String(), planted)
}

// What MSAL cannot take is not moved.
func TestMoveLeavesOutWhatMSALRefuses(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	for name, bad := range refusable {
		for _, into := range [][]byte{nil, oneAccount("ben"), with(t, oneAccount("ben"), "AccessToken", "worse", `1`)} {
			log.Reset()
			from, to := persistence.NewMemory(), persistence.NewMemory()
			require.NoError(t, from.Save(t.Context(), with(t, oneAccount("ann"), bad.section, bad.key, bad.value)))
			if into != nil {
				require.NoError(t, to.Save(t.Context(), into))
			}
			require.NoError(t, persistence.Move(t.Context(), from, to))
			now, err := to.Load(t.Context())
			require.NoError(t, err)
			require.NoError(t, msalMemory(t).Unmarshal(now), "%s: %s", name, now)
			require.Contains(t, usersIn(t, now), "ann")
			require.Equal(t, into != nil, strings.Contains(string(now), "ben"))
			require.Equal(t, 1, strings.Count(log.String(), "\n"), "%s", &log)
			require.Contains(t, log.String(), "bad")
			require.NotContains(t, log.String(), "pl4nted-s3cret")
		}
	}
	log.Reset()
	from, to := persistence.NewMemory(), persistence.NewMemory()
	require.NoError(t, from.Save(t.Context(), oneAccount("ann")))
	require.NoError(t, persistence.Move(t.Context(), from, to))
	require.Empty(t, log.String(), "control")
	now, err := to.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, string(oneAccount("ann")), string(now))
}
