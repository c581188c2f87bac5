package merge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// now is the time of every merge in the tables; a time in them is an offset in
// seconds from it.
var now = time.Unix(1_700_000_000, 0)

// The sections that all MSAL libraries share.
const (
	accessToken  = tokencache.AccessToken
	refreshToken = tokencache.RefreshToken
	idToken      = tokencache.IDToken
	account      = tokencache.AccountSection
	appMetadata  = tokencache.AppMetadata
)

const env = "login.microsoftonline.com"

// An ent is an entry of a test's cache, with the key that MSAL gives it.
type ent struct {
	section, key string
	fields       map[string]any
}

// cache serializes entries.
func cacheOf(es ...ent) string {
	c := map[string]map[string]map[string]any{}
	for _, e := range es {
		if c[e.section] == nil {
			c[e.section] = map[string]map[string]any{}
		}
		c[e.section][e.key] = e.fields
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// with returns the entry with some fields set: name, value, name, value …
func (e ent) with(kv ...any) ent {
	e.fields = maps.Clone(e.fields)
	for i := 0; i < len(kv); i += 2 {
		e.fields[kv[i].(string)] = kv[i+1]
	}
	return e
}

// as returns the entry under another key.
func (e ent) as(key string) ent {
	e.key = key
	return e
}

func (e ent) without(field string) ent {
	e.fields = maps.Clone(e.fields)
	delete(e.fields, field)
	return e
}

func acc(who string) ent {
	return ent{account, who + "-" + env + "-realm", map[string]any{
		"home_account_id": who, "environment": env, "realm": "realm", "username": who + "@example.com"}}
}

func rt(who, secret string) ent {
	return ent{refreshToken, who + "-" + env + "-refreshtoken-app", map[string]any{
		"home_account_id": who, "environment": env, "client_id": "app", "credential_type": "RefreshToken", "secret": secret}}
}

// familyRT is the refresh token of a family of clients, got by one of them.
func familyRT(who, client, secret string) ent {
	return ent{refreshToken, who + "-" + env + "-refreshtoken-1", map[string]any{
		"home_account_id": who, "environment": env, "client_id": client, "family_id": "1", "credential_type": "RefreshToken", "secret": secret}}
}

// at is an access token cached that many seconds after now, for an hour.
func at(who, scope, secret string, cached int64) ent {
	return clientAT(who, "app", scope, secret, cached)
}

func clientAT(who, client, scope, secret string, cached int64) ent {
	return ent{accessToken, strings.Join([]string{who, env, "accesstoken", client, "realm", scope}, "-"), map[string]any{
		"home_account_id": who, "environment": env, "client_id": client, "realm": "realm", "credential_type": "AccessToken",
		"target": scope, "secret": secret, "cached_at": fmt.Sprint(now.Unix() + cached), "expires_on": fmt.Sprint(now.Unix() + cached + 3600)}}
}

func idt(who, secret string) ent {
	return ent{idToken, who + "-" + env + "-idtoken-app-realm", map[string]any{
		"home_account_id": who, "environment": env, "client_id": "app", "realm": "realm", "credential_type": "IdToken", "secret": secret}}
}

func app(client string) ent {
	return ent{appMetadata, "appmetadata-" + env + "-" + client, map[string]any{"client_id": client, "environment": env}}
}

// secs is that time, in the form MSAL writes it.
func secs(offset int64) string { return fmt.Sprint(now.Unix() + offset) }

// contents decodes a cache for comparison: sections without entries dropped.
func contents(t *testing.T, data string) map[string]any {
	t.Helper()
	var c map[string]any
	if data == "" {
		data = "{}"
	}
	d := json.NewDecoder(strings.NewReader(data))
	d.UseNumber()
	require.NoError(t, d.Decode(&c), "%s", data)
	maps.DeleteFunc(c, func(_ string, v any) bool {
		m, ok := v.(map[string]any)
		return ok && len(m) == 0
	})
	return c
}

// mustMerge merges and checks what holds for every merge.
func mustMerge(t testing.TB, in BytesInput) []byte {
	t.Helper()
	before := [][]byte{bytes.Clone(in.Base), bytes.Clone(in.Ours), bytes.Clone(in.Theirs)}
	got, changed, err := Bytes(in)
	require.NoError(t, err)
	require.Equal(t, before, [][]byte{bytes.Clone(in.Base), bytes.Clone(in.Ours), bytes.Clone(in.Theirs)}, "Merge changed its input")
	if changed {
		require.True(t, json.Valid(got), "invalid JSON: %s", got)
		require.False(t, Equal(got, in.Theirs), "changed, but equal to theirs")
	} else {
		require.Equal(t, string(in.Theirs), string(got), "not changed, but not theirs")
	}
	return got
}

// mustMergeOnce is mustMerge for caches in which a key names an account, as
// MSAL's do: then merging the result once more changes nothing.
func mustMergeOnce(t testing.TB, in BytesInput) []byte {
	t.Helper()
	got := mustMerge(t, in)
	again := in
	again.Theirs = got
	twice, changed, err := Bytes(again)
	require.NoError(t, err)
	require.False(t, changed, "not idempotent: %s\nthen %s", got, twice)
	return got
}

func shuffledKeys[V any](m map[string]V, rnd *rand.Rand) []string {
	ks := slices.Sorted(maps.Keys(m))
	rnd.Shuffle(len(ks), func(i, j int) { ks[i], ks[j] = ks[j], ks[i] })
	return ks
}

// parse parses a cache. It returns nil if data is not one.
func parse(data []byte) *tokencache.Doc {
	d, err := tokencache.Parse(data)
	if err != nil {
		return nil
	}
	return d
}

// Equal reports whether a and b are the same cache.
func Equal(a, b []byte) bool {
	da, db := parse(a), parse(b)
	return bytes.Equal(a, b) || da != nil && db != nil && tokencache.Equal(da, db)
}

// signedOut is SignedOut of bytes.
func signedOut(base, side []byte) []tokencache.Account {
	b, s := parse(base), parse(side)
	if b == nil || s == nil {
		return nil
	}
	return SignedOut(b, s)
}

// withdrawn takes accounts out of what ours changed: their entries are as theirs has
// them. So package replica keeps out of a merge what was signed out.
func withdrawn(in BytesInput, gone []tokencache.Account) BytesInput {
	if ours, theirs := parse(in.Ours), parse(in.Theirs); len(gone) > 0 && ours != nil && theirs != nil {
		in.Ours = ours.Restore(theirs, gone)
	}
	return in
}

func named(id, environment string) tokencache.Account {
	return tokencache.Account{HomeAccountID: id, Environment: environment}
}
