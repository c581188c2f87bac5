package tokensource

import (
	"bytes"
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

func TestReplaceTouchesNothingElse(t *testing.T) {
	e := entry{accessToken: json.RawMessage(`"a"`)}
	const value = `{"access_token":"a"}`
	for _, test := range []struct{ name, before, set, removed string }{
		{"nothing", "", `{"OAuth2Token":{"k":` + value + `}}`, ""},
		{"no section", "{ \"AccessToken\" : {\"x\": 1.50} }\n", "{ \"AccessToken\" : {\"x\": 1.50} ,\"OAuth2Token\":{\"k\":" + value + "}}\n", "{ \"AccessToken\" : {\"x\": 1.50} }\n"},
		{"no key", `{"OAuth2Token": {"other" : {"z":1e3} }, "é": [1]}`, `{"OAuth2Token": {"other" : {"z":1e3} ,"k":` + value + `}, "é": [1]}`, `{"OAuth2Token": {"other" : {"z":1e3} }, "é": [1]}`},
		{"first key", `{"OAuth2Token":{"k": {"old":true} , "l" : 2}}`, `{"OAuth2Token":{"k": ` + value + ` , "l" : 2}}`, `{"OAuth2Token":{"l" : 2}}`},
		{"middle key", `{"OAuth2Token":{"j":0, "k":1 ,"l":2}}`, `{"OAuth2Token":{"j":0, "k":` + value + ` ,"l":2}}`, `{"OAuth2Token":{"j":0, "l":2}}`},
		{"last key", `{"OAuth2Token":{"j":0 , "k":1 }}`, `{"OAuth2Token":{"j":0 , "k":` + value + ` }}`, `{"OAuth2Token":{"j":0 }}`},
		{"only key", `{"OAuth2Token":{ "k" : 1 },"x":{}}`, `{"OAuth2Token":{ "k" : ` + value + ` },"x":{}}`, `{"OAuth2Token":{  },"x":{}}`},
		{"escaped key", `{"OAuth2Token":{"\u006b":1}}`, `{"OAuth2Token":{"\u006b":` + value + `}}`, `{"OAuth2Token":{}}`},
		{"twice", `{"OAuth2Token":{"k":1,"k":2}}`, `{"OAuth2Token":{"k":1,"k":` + value + `}}`, `{"OAuth2Token":{}}`},
		{"null", `{"OAuth2Token":null}`, `{"OAuth2Token":{"k":` + value + `}}`, `{"OAuth2Token":null}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, err := replace([]byte(test.before), "k", e)
			require.NoError(t, err)
			require.Equal(t, test.set, string(set))
			got, err := find(set, "k")
			require.NoError(t, err)
			require.Equal(t, e, got)
			removed, err := replace([]byte(test.before), "k", nil)
			require.NoError(t, err)
			require.Equal(t, test.removed, string(removed))
			got, err = find(removed, "k")
			require.NoError(t, err)
			require.Nil(t, got)
		})
	}
	for _, bad := range []string{"[]", "nonsense", `{"OAuth2Token":{`, `{"OAuth2Token":[]}`, `{"OAuth2Token":"x"}`, `{"a":1,}`, `{"a" 1}`} {
		_, err := replace([]byte(bad), "k", e)
		require.ErrorIs(t, err, errFormat, bad)
		_, err = find([]byte(bad), "k")
		require.ErrorIs(t, err, errFormat, bad)
	}
}

func FuzzReplace(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"OAuth2Token":{"k":{"access_token":"x"},"l":{}},"Account":{"a":{"b":"c"}}}`, ` { "OAuth2Token" : null , "x" : [ 1 ] } `, `{"OAuth2Token":{"k":1,"k":2},"OAuth2Token":{}}`} {
		f.Add([]byte(seed), "k", true)
		f.Add([]byte(seed), "\"\\,", false)
	}
	f.Fuzz(func(t *testing.T, data []byte, key string, set bool) {
		var e entry
		if set {
			e = entry{accessToken: json.RawMessage(`"new"`)}
		}
		after, err := replace(data, key, e)
		if err != nil {
			return
		}
		quoted, err := json.Marshal(key)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(quoted, &key)) // as JSON writes it
		got, err := find(after, key)
		require.NoError(t, err)
		require.Equal(t, e, got)

		// What is left but that key is as it was, to encoding/json.
		rest := func(data []byte) map[string]any {
			var all map[string]json.RawMessage
			if data = tokencache.Trim(data); len(data) > 0 { // what holds nothing, and a byte order mark
				require.NoError(t, json.NewDecoder(bytes.NewReader(data)).Decode(&all))
			}
			out := map[string]any{}
			for name, raw := range all {
				if name != section {
					out[name] = string(raw)
				}
			}
			entries := map[string]json.RawMessage{}
			if raw, ok := all[section]; ok {
				require.NoError(t, json.Unmarshal(raw, &entries))
			}
			for name, raw := range entries {
				if name != key {
					out["entry "+name] = string(raw)
				}
			}
			return out
		}
		require.Equal(t, rest(data), rest(after))
	})
}

// Package oauth2 has no list of a response's fields. If this fails, it keeps
// them elsewhere now: see extras.
func TestExtrasFindsUnknownFields(t *testing.T) {
	json := (&oauth2.Token{}).WithExtra(map[string]any{"wholly_unknown": "x"})
	named, _ := extras(json)
	require.Contains(t, named, "wholly_unknown")
	form := (&oauth2.Token{}).WithExtra(url.Values{"wholly_unknown": {"x"}, "n": {"7"}})
	named, _ = extras(form)
	require.Contains(t, named, "wholly_unknown")
	e := newEntry(form, time.Now())
	require.Equal(t, `"x"`, string(e["wholly_unknown"]))
	require.Equal(t, `7`, string(e["n"]))
	require.NotContains(t, e, "scope")
	for _, odd := range []any{nil, 7, map[int]string{1: "x"}, map[string]int{"a": 1}} {
		require.NotPanics(t, func() { newEntry((&oauth2.Token{}).WithExtra(odd), time.Now()) })
	}
}

func TestEntryTimes(t *testing.T) {
	for in, want := range map[string]int64{`1767225600`: 1767225600, `"1767225600"`: 1767225600, `1767225600.9`: 1767225600, `"x"`: 0, `null`: 0, `-5`: 0, `1e300`: 0, `"NaN"`: 0, ``: 0} {
		got := entry{expiresOn: json.RawMessage(in)}.time(expiresOn)
		if want == 0 {
			require.True(t, got.IsZero(), in)
			continue
		}
		require.Equal(t, want, got.Unix(), in)
	}
	// Nothing of an old token's lifetime is left if the new one has none.
	old := newEntry((&oauth2.Token{AccessToken: "a", RefreshToken: "r", Expiry: time.Now()}).WithExtra(map[string]any{"expires_in": 60.0}), time.Now())
	next := old.refreshed(&oauth2.Token{AccessToken: "b"}, time.Now())
	require.NotContains(t, next, expiresOn)
	require.NotContains(t, next, expiresIn)
	require.Equal(t, "r", next.text(refreshToken))
	// A provider's own expires_on (Entra ID v1) does not outlive its token.
	odd := newEntry((&oauth2.Token{AccessToken: "a"}).WithExtra(map[string]any{"expires_on": "99"}), time.Now())
	require.NotContains(t, odd, expiresOn)
}
