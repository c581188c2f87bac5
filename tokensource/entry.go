package tokensource

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// section is the section of the cache that holds the tokens.
const section = tokencache.OAuth2Token

// The fields of an entry that this package knows; see the package comment.
const (
	accessToken  = "access_token"
	tokenType    = "token_type"
	refreshToken = "refresh_token"
	expiresIn    = "expires_in"
	cachedAt     = "cached_at"
	expiresOn    = "expires_on"
)

// entry is the token of one key: the fields of the provider's response, and
// what this package adds. A nil entry means that nothing is stored.
type entry map[string]json.RawMessage

// newEntry returns the entry of a token that was received at that time.
func newEntry(t *oauth2.Token, at time.Time) entry {
	e := entry{}
	named, known := extras(t)
	for _, name := range append(known, named...) {
		v := t.Extra(name)
		if v == nil || v == "" && !slices.Contains(named, name) { // Extra may return "" for what is not there
			continue
		}
		if b, err := json.Marshal(v); err == nil { // it came from JSON, or from a form
			e[name] = b
		}
	}
	delete(e, expiresOn)
	for name, v := range map[string]string{accessToken: t.AccessToken, tokenType: t.TokenType, refreshToken: t.RefreshToken} {
		delete(e, name)
		if v != "" {
			e[name], _ = json.Marshal(v) // a string
		}
	}
	e[cachedAt] = unix(at)
	if !t.Expiry.IsZero() {
		e[expiresOn] = unix(t.Expiry)
	}
	return e
}

// refreshed returns the entry after a refresh: what the response leaves out
// stays as it was, except the old token's lifetime.
func (e entry) refreshed(t *oauth2.Token, at time.Time) entry {
	next := entry{}
	for name, v := range e {
		if name != expiresIn && name != expiresOn {
			next[name] = v
		}
	}
	for name, v := range newEntry(t, at) {
		next[name] = v
	}
	return next
}

func unix(t time.Time) json.RawMessage { return strconv.AppendInt(nil, t.Unix(), 10) }

// text returns a field that is a string, or "".
func (e entry) text(name string) (s string) {
	if json.Unmarshal(e[name], &s) != nil {
		return ""
	}
	return s
}

// sameAs reports whether both are nil or have the same token: the same refresh
// token or, where neither has one, the same access token.
func (e entry) sameAs(other entry) bool {
	if e == nil || other == nil {
		return e == nil && other == nil
	}
	name := refreshToken
	if e.text(name) == "" && other.text(name) == "" {
		name = accessToken
	}
	return e.text(name) == other.text(name)
}

// time returns a field that is a time in seconds since 1970, or its string.
func (e entry) time(name string) time.Time {
	n, err := strconv.ParseFloat(strings.Trim(string(e[name]), `"`), 64)
	if err != nil || n <= 0 || !(n < math.MaxInt32*1000) {
		return time.Time{}
	}
	return time.Unix(int64(n), 0)
}

// token returns the entry as a token. Its Extra has all fields. The refresh token
// is left out, also of Extra, unless withRefresh is set.
func (e entry) token(withRefresh bool) *oauth2.Token {
	all := map[string]any{}
	for name, raw := range e {
		var v any
		if (withRefresh || name != refreshToken) && json.Unmarshal(raw, &v) == nil {
			all[name] = v
		}
	}
	t := &oauth2.Token{AccessToken: e.text(accessToken), TokenType: e.text(tokenType), Expiry: e.time(expiresOn)}
	if withRefresh {
		t.RefreshToken = e.text(refreshToken)
	}
	return t.WithExtra(all)
}

// due returns when the token is to be refreshed: the duration early before its
// expiry, but not in the first half of its life. The zero time means never.
func (e entry) due(early time.Duration) time.Time {
	end := e.time(expiresOn)
	if end.IsZero() {
		return end
	}
	if from := e.time(cachedAt); !from.IsZero() && end.After(from) {
		early = min(early, end.Sub(from)/2)
	}
	return end.Add(-early)
}

// extras returns the names of the fields of a token's Extra, and the names of other
// fields that Extra may have.
//
// oauth2.Token has no list of them, so the names are taken from the private field
// that Extra looks into: a map[string]any or url.Values in golang.org/x/oauth2
// v0.1.0, v0.20.0, v0.30.0, v0.36.0 and v0.37.0. If another version keeps them
// elsewhere, a test fails, and those listed here are still found.
func extras(t *oauth2.Token) (named, known []string) {
	known = []string{"scope", idToken, expiresIn, "refresh_token_expires_in", "refresh_expires_in"}
	v := reflect.ValueOf(t).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Interface {
			continue
		}
		if m := f.Elem(); m.Kind() == reflect.Map && m.Type().Key().Kind() == reflect.String {
			for _, k := range m.MapKeys() {
				named = append(named, k.String())
			}
		}
	}
	return named, known
}

// errFormat: what is stored is not two-level JSON.
var errFormat = errors.New("what is stored is not a token cache")

// find returns the entry of a key, nil if there is none. An entry that is not an
// object counts as an empty one: something is stored, but no token.
func find(data []byte, key string) (entry, error) {
	d, err := tokencache.Parse(tokencache.Trim(data))
	if err != nil {
		return nil, errFormat
	}
	at, err := d.Get(section, key)
	switch {
	case err != nil:
		return nil, errFormat
	case at == nil:
		return nil, nil
	}
	e := entry{}
	if json.Unmarshal(at.Value(), &e) != nil || e == nil {
		return entry{}, nil
	}
	return e, nil
}

// replace returns data with another entry of a key, or without one if e is nil.
// All other bytes stay as they are.
func replace(data []byte, key string, e entry) ([]byte, error) {
	d, err := tokencache.Parse(tokencache.Trim(data))
	if err != nil {
		return nil, errFormat
	}
	if e == nil {
		data, err = d.Delete(section, key)
	} else {
		value, bad := json.Marshal(e)
		if bad != nil {
			return nil, bad
		}
		data, err = d.Set(section, key, value)
	}
	if err != nil {
		return nil, errFormat
	}
	return data, nil
}
