package tokensource

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// section is the section of the cache that holds the tokens.
const section = "OAuth2Token"

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
	for _, name := range extras(t) {
		v := t.Extra(name)
		if v == nil || v == "" {
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

// extras returns the names of the fields that a token's Extra may know.
//
// oauth2.Token has no list of them, so the names are taken from the private field
// that Extra looks into: a map[string]any or url.Values in golang.org/x/oauth2
// v0.1.0, v0.20.0, v0.30.0, v0.36.0 and v0.37.0. If another version keeps them
// elsewhere, a test fails, and those listed here are still found.
func extras(t *oauth2.Token) []string {
	names := []string{"scope", "id_token", expiresIn, "refresh_token_expires_in", "refresh_expires_in"}
	v := reflect.ValueOf(t).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Interface {
			continue
		}
		if m := f.Elem(); m.Kind() == reflect.Map && m.Type().Key().Kind() == reflect.String {
			for _, k := range m.MapKeys() {
				names = append(names, k.String())
			}
		}
	}
	return names
}

// errFormat: what is stored is not two-level JSON.
var errFormat = errors.New("what is stored is not a token cache")

// span is where a member of a JSON object lies.
type span struct {
	from, to int // the member: key and value
	value    int // where the value begins
}

// members returns the members of the JSON object that data begins with, and
// where the object's brace closes. Of a repeated name the last counts.
func members(data []byte) (all map[string]span, end int, ok bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, 0, false
	}
	all = map[string]span{}
	for d.More() {
		before := int(d.InputOffset())
		t, err := d.Token()
		name, isName := t.(string)
		var v json.RawMessage
		if err != nil || !isName || d.Decode(&v) != nil {
			return nil, 0, false
		}
		to := int(d.InputOffset())
		from := before + bytes.IndexByte(data[before:], '"')
		all[name] = span{from, to, to - len(v)}
	}
	if _, err := d.Token(); err != nil {
		return nil, 0, false
	}
	return all, int(d.InputOffset()) - 1, true
}

// find returns the entry of a key, nil if there is none. An entry that is no
// object counts as an empty one: there is something, and no use in it.
func find(data []byte, key string) (entry, error) {
	if len(data) == 0 {
		return nil, nil
	}
	sections, _, ok := members(data)
	if !ok {
		return nil, errFormat
	}
	s, ok := sections[section]
	if !ok || string(data[s.value:s.to]) == "null" {
		return nil, nil
	}
	entries, _, ok := members(data[s.value:s.to])
	if !ok {
		return nil, errFormat
	}
	at, ok := entries[key]
	if !ok {
		return nil, nil
	}
	e := entry{}
	if json.Unmarshal(data[s.value+at.value:s.value+at.to], &e) != nil || e == nil {
		return entry{}, nil
	}
	return e, nil
}

// replace returns data with another entry of a key, or without one if e is nil.
// All other bytes stay as they are.
func replace(data []byte, key string, e entry) ([]byte, error) {
	var value []byte
	if e != nil {
		var err error
		if value, err = json.Marshal(e); err != nil {
			return nil, err
		}
	}
	if len(data) == 0 {
		data = []byte("{}")
	}
	sections, _, ok := members(data)
	if !ok {
		return nil, errFormat
	}
	inner := []byte("{}")
	if s, ok := sections[section]; ok && string(data[s.value:s.to]) != "null" {
		inner = data[s.value:s.to]
	}
	inner, ok = withMember(inner, key, value)
	if !ok {
		return nil, errFormat
	}
	if data, ok = withMember(data, section, inner); !ok {
		return nil, errFormat
	}
	return data, nil
}

// withMember returns the object with another value of a member, or without the
// member if the value is nil.
func withMember(object []byte, name string, value []byte) ([]byte, bool) {
	all, end, ok := members(object)
	if !ok {
		return nil, false
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	at, there := all[name]
	switch {
	case there && value != nil:
		return join(object[:at.value], value, object[at.to:]), true
	case there:
		before, after := object[:at.from], object[at.to:]
		if trimmed := bytes.TrimLeft(after, " \t\r\n"); trimmed[0] == ',' {
			after = trimmed[1:]
		} else {
			before = bytes.TrimSuffix(bytes.TrimRight(before, " \t\r\n"), []byte(","))
		}
		// An earlier member of that name would count now.
		return withMember(join(before, after), name, nil)
	case value == nil:
		return object, true
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return nil, false
	}
	comma := []byte(",")
	if len(all) == 0 {
		comma = nil
	}
	return join(object[:end], comma, quoted, []byte(":"), value, object[end:]), true
}
