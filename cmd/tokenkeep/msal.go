package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// contents is what a cache of the MSAL libraries and of package tokensource holds,
// without the secrets.
type contents struct {
	Accounts     []account `json:"accounts"`
	Applications []token   `json:"applicationTokens"` // of an application, not of an account
	Orphans      []token   `json:"orphanTokens"`      // of an account that is not there (any more)
	OAuth2       []oauth2  `json:"oauth2Tokens"`      // of package tokensource
	AppMetadata  int       `json:"appMetadata"`
	Unknown      int       `json:"unknownSections"`
}

type account struct {
	Username      string  `json:"username"`
	HomeAccountID string  `json:"homeAccountId"`
	Environment   string  `json:"environment"`
	Realm         string  `json:"realm"`
	Tokens        []token `json:"tokens"`
}

type token struct {
	Kind      string     `json:"kind"` // access, refresh or id
	ClientID  string     `json:"clientId,omitempty"`
	Family    string     `json:"family,omitempty"` // of clients, that share a refresh token
	Realm     string     `json:"realm,omitempty"`
	Scopes    []string   `json:"scopes,omitempty"`
	CachedAt  *time.Time `json:"cachedAt,omitempty"`
	ExpiresOn *time.Time `json:"expiresOn,omitempty"`
	Expired   bool       `json:"expired,omitempty"`
}

// oauth2 is a token that package tokensource keeps.
type oauth2 struct {
	Key          string     `json:"key"`
	TokenType    string     `json:"tokenType,omitempty"`
	Scopes       []string   `json:"scopes,omitempty"`
	RefreshToken bool       `json:"refreshToken"` // whether there is one
	CachedAt     *time.Time `json:"cachedAt,omitempty"`
	ExpiresOn    *time.Time `json:"expiresOn,omitempty"`
	Expired      bool       `json:"expired,omitempty"`
}

// The sections of the cache format that all MSAL libraries share, and that of
// package tokensource.
const (
	accessTokens  = "AccessToken"
	refreshTokens = "RefreshToken"
	idTokens      = "IdToken"
	accounts      = "Account"
	appMetadata   = "AppMetadata"
	oauth2Tokens  = "OAuth2Token"
)

// sections are a cache: section, key, entry.
type sections map[string]json.RawMessage

type entries map[string]json.RawMessage

// parseCache reads the two levels of a cache. Nothing of the data gets into
// the error.
func parseCache(data []byte) (sections, error) {
	var s sections
	if len(data) == 0 {
		return s, nil
	}
	if json.Unmarshal(data, &s) != nil || s == nil {
		return nil, &refusal{"what is stored is not a token cache of an MSAL library", "Use the program that stored it.", persistence.ErrCorrupt}
	}
	return s, nil
}

func (s sections) entries(section string) entries {
	var e entries
	json.Unmarshal(s[section], &e) // a section of another form has none
	return e
}

// fields are those of an entry, none of which is read that can hold a secret.
type fields struct {
	HomeAccountID string `json:"home_account_id"`
	Environment   string `json:"environment"`
	Realm         string `json:"realm"`
	ClientID      string `json:"client_id"`
	FamilyID      string `json:"family_id"`
	Target        string `json:"target"`
	Username      string `json:"username"`
	CachedAt      when   `json:"cached_at"`
	ExpiresOn     when   `json:"expires_on"`
}

// when is a time in seconds since 1970, as a number or as a string of its
// digits.
type when struct{ time.Time }

// UnmarshalJSON implements json.Unmarshaler. What is no such time is none.
func (w *when) UnmarshalJSON(b []byte) error {
	if n, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64); err == nil && n > 0 && n < 1<<36 {
		w.Time = time.Unix(n, 0).UTC()
	}
	return nil
}

func (w when) ref() *time.Time {
	if w.IsZero() {
		return nil
	}
	return &w.Time
}

// summarize says what a cache holds.
func summarize(data []byte, now time.Time) (*contents, error) {
	s, err := parseCache(data)
	if err != nil {
		return nil, err
	}
	sum := &contents{Accounts: []account{}, Applications: []token{}, Orphans: []token{}, OAuth2: s.oauth2(now), AppMetadata: len(s.entries(appMetadata))}
	for section := range s {
		switch section {
		case accessTokens, refreshTokens, idTokens, accounts, appMetadata, oauth2Tokens:
		default:
			sum.Unknown++
		}
	}
	read := func(section string, add func(fields)) {
		e := s.entries(section)
		for _, key := range slices.Sorted(maps.Keys(e)) {
			var f fields
			if json.Unmarshal(e[key], &f) == nil {
				add(f)
			}
		}
	}
	owner := func(f fields) string { return strings.ToLower(f.HomeAccountID + " " + f.Environment) }
	byOwner := map[string]int{}
	read(accounts, func(f fields) {
		if _, known := byOwner[owner(f)]; known {
			return // an account may have an entry for each of its tenants
		}
		byOwner[owner(f)] = len(sum.Accounts)
		sum.Accounts = append(sum.Accounts, account{printable(f.Username), printable(f.HomeAccountID), printable(f.Environment), printable(f.Realm), []token{}})
	})
	for _, kind := range []struct{ section, name string }{{accessTokens, "access"}, {refreshTokens, "refresh"}, {idTokens, "id"}} {
		read(kind.section, func(f fields) {
			t := token{Kind: kind.name, ClientID: printable(f.ClientID), Family: printable(f.FamilyID), Realm: printable(f.Realm), Scopes: strings.Fields(printable(f.Target)),
				CachedAt: f.CachedAt.ref(), ExpiresOn: f.ExpiresOn.ref()}
			t.Expired = t.ExpiresOn != nil && !t.ExpiresOn.After(now)
			if i, known := byOwner[owner(f)]; known {
				sum.Accounts[i].Tokens = append(sum.Accounts[i].Tokens, t)
			} else if f.HomeAccountID == "" {
				sum.Applications = append(sum.Applications, t)
			} else {
				sum.Orphans = append(sum.Orphans, t)
			}
		})
	}
	slices.SortStableFunc(sum.Accounts, func(a, b account) int { return cmp.Compare(a.Username, b.Username) })
	return sum, nil
}

// oauth2 are the tokens of package tokensource. What a field has in another form
// than it should is not shown.
func (s sections) oauth2(now time.Time) []oauth2 {
	tokens := []oauth2{}
	e := s.entries(oauth2Tokens)
	for _, key := range slices.Sorted(maps.Keys(e)) {
		var f map[string]json.RawMessage
		if json.Unmarshal(e[key], &f) != nil || f == nil {
			continue
		}
		text := func(field string) (s string) {
			json.Unmarshal(f[field], &s)
			return s
		}
		at := func(field string) *time.Time {
			var w when
			json.Unmarshal(f[field], &w)
			return w.ref()
		}
		t := oauth2{Key: printable(key), TokenType: printable(text("token_type")), Scopes: strings.Fields(printable(text("scope"))),
			RefreshToken: text("refresh_token") != "", CachedAt: at("cached_at"), ExpiresOn: at("expires_on")}
		t.Expired = t.ExpiresOn != nil && !t.ExpiresOn.After(now)
		tokens = append(tokens, t)
	}
	return tokens
}

func (t oauth2) line(now time.Time) string {
	var parts []string
	if t.TokenType != "" {
		parts = append(parts, t.TokenType)
	}
	if len(t.Scopes) > 0 {
		parts = append(parts, "for "+strings.Join(t.Scopes, " "))
	}
	expiry := expiryWords(t.ExpiresOn, now)
	if expiry == "" {
		expiry = "does not say when it expires"
	}
	refresh := "without a refresh token"
	if t.RefreshToken {
		refresh = "with a refresh token"
	}
	return fmt.Sprintf("%-8s %s", t.Key, strings.Join(append(parts, expiry, refresh), ", "))
}

// expiryWords says when a token expires or has expired, "" if that is not known.
func expiryWords(on *time.Time, now time.Time) string {
	switch {
	case on == nil:
		return ""
	case on.After(now):
		return "expires in " + ago(on.Sub(now))
	}
	return "expired " + ago(now.Sub(*on)) + " ago"
}

func (t token) line(now time.Time) string {
	var parts []string
	if t.ClientID != "" {
		parts = append(parts, "client "+t.ClientID)
	}
	if t.Family != "" {
		parts = append(parts, "family "+t.Family)
	}
	if len(t.Scopes) > 0 {
		parts = append(parts, "for "+strings.Join(t.Scopes, " "))
	}
	if expiry := expiryWords(t.ExpiresOn, now); expiry != "" {
		parts = append(parts, expiry)
	}
	return fmt.Sprintf("%-8s %s", t.Kind, strings.Join(parts, ", "))
}

// ago is a duration as a person says it.
func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return count(int(d.Seconds()), "second")
	case d < 2*time.Hour:
		return count(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return count(int(d.Hours()), "hour")
	}
	return count(int(d.Hours()/24), "day")
}
